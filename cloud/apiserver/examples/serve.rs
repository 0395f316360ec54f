//! temporary
use std::sync::Arc;
#[tokio::main]
async fn main() {
    rustls::crypto::ring::default_provider().install_default().ok();
    tracing_subscriber::fmt().init();
    let dir: std::path::PathBuf = std::env::args().nth(1).unwrap().into();
    let options = ledge_log::Options::new(ledge_proto::ids::ClusterId([7; 16]), "cloud".to_owned());
    let (log, _) = ledge_log::Log::open(Arc::new(ledge_log::DiskStorage), &dir.join("log"), options).unwrap();
    let (projection, _) = ledge_projection::Projection::open(&dir.join("projection"), &log, &ledge_projection::Options::cloud()).unwrap();
    ledge_projection::Follower::catch_up(&log, &projection, || false).unwrap();
    let config = ledge_apiserver::embedded::Config { listen: "127.0.0.1:16443".parse().unwrap(), names: vec![], data_dir: dir.clone(), limits: Default::default() };
    let embedded = ledge_apiserver::embedded::Embedded::open(config, log.clone(), &projection, &[]).await.unwrap();
    let _follower = ledge_projection::Follower::start(log, projection);
    println!("ready {:?}", embedded.kubeconfig());
    embedded.run(Default::default()).await;
}
