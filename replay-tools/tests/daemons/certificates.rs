//! Certificates and keys that do not fit: what can be known at the start is refused there, what only the other end
//! knows is told in the log while work goes on.

use std::fs;
use std::path::Path;

use ledge::quickstart::site::NODE;
use ledge_replication::certs::CertFiles;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};

use crate::support::place::{Place, refuses, until, with};

fn files(place: &Place, name: &str) -> CertFiles {
    CertFiles {
        ca: place.path("pki/ca.crt"),
        cert: place.path(&format!("pki/{name}.crt")),
        key: place.path(&format!("pki/{name}.key")),
    }
}

#[tokio::test]
async fn a_certificate_that_names_another_node() {
    let place = Place::new().await;
    let other = place.issue_node("edge-2");
    let edge = with(
        place.edge_alone(),
        &[("--cert", &other.cert), ("--key", &other.key)],
    );
    refuses(
        &edge,
        1,
        &[
            "certificate names node edge-2",
            "configuration edge-1",
            "leave the name out",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_clouds_certificate_at_the_edge_and_a_nodes_in_the_cloud() {
    let place = Place::new().await;
    let (cloud, node) = (files(&place, "cloudcore"), files(&place, NODE));
    let edge = with(
        place.edge_alone(),
        &[("--cert", &cloud.cert), ("--key", &cloud.key)],
    );
    refuses(
        &edge,
        1,
        &[
            "cloudcore.crt",
            "not a node's certificate",
            "ledge cert node NAME",
        ],
    )
    .await;
    let cloud = with(place.cloud(), &[("--cert", &node.cert), ("--key", &node.key)]);
    refuses(
        &cloud,
        1,
        &["edge-1.crt", "the certificate of edge-1", "ledge cert cloud"],
    )
    .await;
    assert!(
        !place.site.edge_dir().join("log").exists(),
        "nothing is made with a wrong certificate"
    );
    assert!(
        !place.site.cloud_dir().join("log").exists(),
        "nothing is made with a wrong certificate"
    );
}

#[tokio::test]
async fn files_that_are_missing_garbage_or_do_not_belong_together() {
    let place = Place::new().await;
    let garbage = place.path("garbage.pem");
    fs::write(
        &garbage,
        "-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n",
    )
    .unwrap();
    let nothing = place.path("nothing.pem");
    let other = place.issue_node("edge-2").key;
    let other = other.as_path();
    let own = |name: &str| files(&place, name);
    for (launch, name) in [(place.edge_alone(), NODE), (place.cloud(), "cloudcore")] {
        for flag in ["--ca", "--cert", "--key"] {
            let missing = with(launch.clone(), &[(flag, &nothing)]);
            refuses(&missing, 1, &["nothing.pem", "No such file", "ledge cert"]).await;
            let broken = with(launch.clone(), &[(flag, &garbage)]);
            refuses(&broken, 1, &["garbage.pem"]).await;
        }
        let cert = own(name).cert;
        let mixed = with(launch.clone(), &[("--cert", cert.as_path()), ("--key", other)]);
        refuses(
            &mixed,
            1,
            &["edge-2.key", "does not belong to", cert.to_str().unwrap()],
        )
        .await;
        // Easily confused: a key where a certificate belongs.
        let swapped = with(launch, &[("--cert", other)]);
        refuses(&swapped, 1, &["edge-2.key", "certificate"]).await;
    }
}

/// The edge trusts another authority than the one that signed its cloud's certificate.
#[tokio::test]
async fn a_foreign_authority_gets_no_link_and_stops_no_work() {
    let (place, foreign) = (Place::new().await, Place::new().await);
    let cloud = foreign.start_cloud().await;
    let (_simulator, device) = place.site.start_device().await.unwrap();
    place.site.write_manifests(device, 30.0).unwrap();
    let edge = place.start_edge(cloud.hub).await;
    place
        .edge_says(&["no link", "certificate", "UnknownIssuer", "work goes on"])
        .await;
    until("edgecore to write", || place.edge_records() >= 2).await;
    // The other way round: the edge trusts the cloud, but its own certificate is foreign to it.
    edge.stop().await.unwrap();
    let trusting = with(
        place.site.edgecore(cloud.hub).unwrap(),
        &[("--ca", &foreign.path("pki/ca.crt"))],
    );
    let edge = trusting.start().await.unwrap();
    foreign.cloud_says(&["connection refused", "certificate"]).await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    assert_eq!(foreign.cloud_records(), 0);
    for place in [place, foreign] {
        place.assert_sound();
    }
}

#[tokio::test]
async fn a_certificate_that_has_expired_gets_no_link_and_stops_no_work() {
    let place = Place::new().await;
    let cloud = place.start_cloud().await;
    let expired = expired_node(&place, &place.path("expired"));
    let launch = with(
        place.site.edgecore(cloud.hub).unwrap(),
        &[("--cert", &expired.cert), ("--key", &expired.key)],
    );
    let edge = launch.start().await.unwrap();
    place
        .edge_says(&["expired.crt", "expired", "ledge cert node"])
        .await;
    place.cloud_says(&["connection refused", "expired"]).await;
    place.edge_says(&["no link", "expired", "work goes on"]).await;
    until("edgecore to write", || place.edge_records() >= 2).await;
    edge.stop().await.unwrap();
    assert_eq!(place.cloud_records(), 0);
    // With a good certificate the same directory catches up.
    let edge = place.start_edge(cloud.hub).await;
    place.cloud_catches_up().await;
    edge.stop().await.unwrap();
    cloud.daemon.stop().await.unwrap();
    place.assert_sound();
}

/// The certificate of [`NODE`] as it was signed two years ago for one.
fn expired_node(place: &Place, dir: &Path) -> CertFiles {
    fs::create_dir(dir).unwrap();
    let read = |name: &str| fs::read_to_string(place.path(name)).unwrap();
    let authority = KeyPair::from_pem(&read("pki/ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("pki/ca.crt"), authority).unwrap();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("system:node:{NODE}"));
    params
        .distinguished_name
        .push(DnType::OrganizationName, "system:nodes");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let cluster = format!("urn:ledge:cluster:{}", place.authority().cluster());
    params
        .subject_alt_names
        .push(SanType::URI(cluster.try_into().unwrap()));
    params.not_before = rcgen::date_time_ymd(2024, 1, 1);
    params.not_after = rcgen::date_time_ymd(2025, 1, 1);
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, &issuer).unwrap();
    let files = CertFiles {
        ca: place.path("pki/ca.crt"),
        cert: dir.join("expired.crt"),
        key: dir.join("expired.key"),
    };
    fs::write(&files.cert, cert.pem()).unwrap();
    fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}
