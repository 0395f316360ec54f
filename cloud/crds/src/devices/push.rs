//! Where samples are pushed to from a node.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema;

/// Where samples of a property are pushed to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushMethod {
    /// To an HTTP server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<PushHttp>,
    /// To an MQTT broker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mqtt: Option<PushMqtt>,
    /// To an OpenTelemetry collector.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otel: Option<PushOtel>,
    /// To a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_method: Option<PushDatabase>,
    /// Looks for values out of the ordinary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::free_form")]
    pub anomaly_detection: Option<Map<String, Value>>,
}

/// An HTTP server.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PushHttp {
    /// Name or address, with scheme.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_name: Option<String>,
    /// Port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Path of requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_path: Option<String>,
    /// Time allowed for a request, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// An MQTT broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushMqtt {
    /// The broker, as a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Topic of messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// 0, 1 or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<i32>,
    /// Whether the broker keeps the last message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retained: Option<bool>,
}

/// An OpenTelemetry collector.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushOtel {
    /// Where it takes measurements.
    #[serde(rename = "endpointURL", skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
}

/// A database; what each needs is its own.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushDatabase {
    /// InfluxDB 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub influxdb2: Option<PushInfluxdb2>,
    /// Redis.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<PushRedis>,
    /// TDengine.
    #[serde(rename = "TDEngine", skip_serializing_if = "Option::is_none")]
    pub tdengine: Option<PushTdengine>,
    /// MySQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mysql: Option<PushMysql>,
}

/// InfluxDB 2.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushInfluxdb2 {
    /// `url`, `org`, `bucket`.
    #[serde(rename = "influxdb2ClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<Influxdb2Client>,
    /// `measurement`, `tag`, `fieldKey`.
    #[serde(rename = "influxdb2DataConfig", skip_serializing_if = "Option::is_none")]
    pub data: Option<Influxdb2Data>,
}

/// Where an InfluxDB is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Influxdb2Client {
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Organisation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub org: Option<String>,
    /// Bucket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket: Option<String>,
}

/// What is written to an InfluxDB.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Influxdb2Data {
    /// Measurement.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measurement: Option<String>,
    /// Tags.
    #[serde(default, skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub tag: std::collections::BTreeMap<String, String>,
    /// Field of the value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field_key: Option<String>,
}

/// Redis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushRedis {
    /// Where it is.
    #[serde(rename = "redisClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<RedisClient>,
}

/// Where a Redis is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisClient {
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Number of the database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db: Option<i64>,
    /// Most connections.
    #[serde(rename = "poolsize", skip_serializing_if = "Option::is_none")]
    pub pool_size: Option<i64>,
    /// Connections kept while idle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_idle_conns: Option<i64>,
}

/// TDengine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushTdengine {
    /// Where it is.
    #[serde(rename = "TDEngineClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<TdengineClient>,
}

/// Where a TDengine is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TdengineClient {
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub db_name: Option<String>,
}

/// MySQL.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PushMysql {
    /// Where it is.
    #[serde(rename = "mysqlClientConfig", skip_serializing_if = "Option::is_none")]
    pub client: Option<MysqlClient>,
}

/// Where a MySQL is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MysqlClient {
    /// Address and port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub addr: Option<String>,
    /// Database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// User.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_name: Option<String>,
}
