//! TLS on the pull port as operators set it: which clients may come, what is spoken, and by whose configuration.

use std::{fs, os::unix::fs::symlink, path::Path};

use hubsim::{Hub, Options};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use crate::{
    rig::{
        https::{Caller, certificate_in, options},
        program::{Serving, run},
        tls::make_certificates,
    },
    support::{Mirror, MirrorOptions, soon},
};

/// Asserts who may pull: with the authority's certificate, with another's, with none.
async fn assert_who_may_pull(address: &str, server: &Path, right: &Path, wrong: &Path, without: bool) {
    let caller = Caller::trusting(server);
    assert_eq!(caller.clone().showing(right).ping(address).await, Ok(200));
    let refused = caller.clone().showing(wrong).ping(address).await;
    assert!(refused.is_err(), "{refused:?}");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let nobody = caller.clone().with_version(version).ping(address).await;
        assert_eq!(nobody.is_ok(), without, "{nobody:?}");
    }
}

#[tokio::test]
async fn only_clients_of_the_authority_may_pull_unless_a_certificate_is_optional() {
    let server = tempfile::tempdir().unwrap();
    certificate_in(server.path());
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(right.path());
    make_certificates(wrong.path());
    let hub = Hub::start(Options::default()).await;
    let ca = right.path().join("ca.pem");
    let required = options(server.path()).env("STOPOVER_TLS__CLIENT_CA", ca.display());
    let optional = required.clone().env("STOPOVER_TLS__CLIENT_AUTH", "optional");
    for (options, without) in [(required, false), (optional, true)] {
        let mirror = Mirror::start_with(&hub, options).await;
        assert_who_may_pull(mirror.address(), server.path(), right.path(), wrong.path(), without).await;
    }
}

#[tokio::test]
async fn a_registrys_variables_set_certificate_key_and_the_clients_authorities() {
    let server = tempfile::tempdir().unwrap();
    certificate_in(server.path());
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(right.path());
    make_certificates(wrong.path());
    let hub = Hub::start(Options::default()).await;
    let options = MirrorOptions::default()
        .env("REGISTRY_HTTP_TLS_CERTIFICATE", server.path().join("tls.crt").display())
        .env("REGISTRY_HTTP_TLS_KEY", server.path().join("tls.key").display())
        .env("REGISTRY_HTTP_TLS_CLIENTCAS_0", right.path().join("ca.pem").display());
    let mirror = Mirror::start_with(&hub, options).await;
    assert_who_may_pull(mirror.address(), server.path(), right.path(), wrong.path(), false).await;
}

#[tokio::test]
async fn a_registrys_file_with_http_tls_serves_tls() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let (right, wrong) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_certificates(right.path());
    make_certificates(wrong.path());
    let file = folder.path().join("config.yml");
    let text = format!(
        "version: 0.1
storage:
  filesystem:
    rootdirectory: {folder}/root
http:
  addr: 127.0.0.1:0
  tls:
    certificate: {folder}/tls.crt
    key: {folder}/tls.key
    minimumtls: tls1.2
    clientcas:
      - {right}/ca.pem
proxy:
  remoteurl: http://127.0.0.1:1
",
        folder = folder.path().display(),
        right = right.path().display()
    );
    fs::write(&file, text).unwrap();
    let program = folder.path().join("registry");
    symlink(env!("CARGO_BIN_EXE_stopover"), &program).unwrap();
    let serving = Serving::start_as(&program, &["serve", file.to_str().unwrap()], folder.path(), &[]);
    let line = serving.until_said("msg=listening ").await;
    let address = line.split("address=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    assert_who_may_pull(address, folder.path(), right.path(), wrong.path(), false).await;
}

#[tokio::test]
async fn a_certificate_is_exchanged_behind_a_symbolic_link_as_kubernetes_does() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["..first", "..second"] {
        fs::create_dir(at(name)).unwrap();
        certificate_in(&at(name));
    }
    symlink("..first", at("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        symlink(format!("..data/{name}"), at(name)).unwrap();
    }
    let hub = Hub::start(Options::default()).await;
    let mirror = Mirror::start_with(&hub, options(folder.path())).await;
    assert_eq!(Caller::trusting(&at("..first")).ping(mirror.address()).await, Ok(200));

    symlink("..second", at("..data_tmp")).unwrap();
    fs::rename(at("..data_tmp"), at("..data")).unwrap();
    fs::remove_dir_all(at("..first")).unwrap();
    // Nobody was told, and the new authority is the one that clients trust from then on.
    let second = Caller::trusting(&at("..second"));
    soon("the new certificate is shown", async { while second.ping(mirror.address()).await != Ok(200) {} })
        .await;
    let told = mirror.log_lines().into_iter().find(|line| line["level"] == "error");
    assert_eq!(told, None);
}

#[tokio::test]
async fn what_is_switched_off_is_not_spoken() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let hub = Hub::start(Options::default()).await;
    let options = options(folder.path()).env("STOPOVER_TLS__MINIMUM", "tls1.3");
    let mirror = Mirror::start_with(&hub, options.env("STOPOVER_HTTP__HTTP2", "false")).await;
    let caller = Caller::trusting(folder.path());
    let old = caller.clone().with_version(&rustls::version::TLS12).ping(mirror.address()).await;
    assert!(old.is_err(), "{old:?}");
    let stream = caller.connect(mirror.address()).await.unwrap();
    let spoken = &stream.get_ref().1;
    assert_eq!(spoken.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(spoken.alpn_protocol(), Some(&b"http/1.1"[..]), "both were offered");
    assert_eq!(caller.ping(mirror.address()).await, Ok(200));
    let plain = Mirror::start_with(&hub, MirrorOptions::default().env("STOPOVER_HTTP__HTTP2", "false")).await;
    for _ in 0..2 {
        assert_eq!(plain.get("/v2/").await.status, 200, "without TLS it is as good");
    }
    let only_h2 = caller.speaking(&[b"h2"]).connect(mirror.address()).await;
    assert!(only_h2.is_err());
}

#[tokio::test]
async fn an_encrypted_key_an_old_certificate_and_a_wrong_order_are_refused_by_check() {
    let folder = tempfile::tempdir().unwrap();
    certificate_in(folder.path());
    let at = |name: &str| folder.path().join(name).display().to_string();
    let pem = |name: &str| fs::read_to_string(at(name)).unwrap();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAo=\n-----END ENCRYPTED PRIVATE KEY-----\n";
    fs::write(at("encrypted.key"), encrypted).unwrap();
    fs::write(at("order.crt"), pem("ca.crt") + &pem("tls.crt")).unwrap();
    let mut params = CertificateParams::new(["mirror.lan".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2019, 1, 1), date_time_ymd(2020, 1, 1));
    let key = KeyPair::generate().unwrap();
    fs::write(at("old.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(at("old.key"), key.serialize_pem()).unwrap();

    let table = [
        ("tls.crt", "encrypted.key", "tls.key", "encrypted.key", "is encrypted"),
        ("old.crt", "old.key", "tls.certificate", "old.crt", "expired on Wed, 01 Jan 2020"),
        ("order.crt", "tls.key", "tls.certificate", "order.crt", "certificate is number 2 in it"),
    ];
    for (certificate, key, named, file, holds) in table {
        let (certificate, key, root) = (at(certificate), at(key), at("root"));
        let env = [
            ("STOPOVER_STORAGE__ROOT", root.as_str()),
            ("STOPOVER_TLS__CERTIFICATE", certificate.as_str()),
            ("STOPOVER_TLS__KEY", key.as_str()),
        ];
        let ended = run(folder.path(), &["check"], &env).await;
        assert_eq!(ended.code, Some(1), "{}", ended.err);
        let wanted = format!("{named}: {}: ", at(file));
        assert!(ended.err.contains(&wanted) && ended.err.contains(holds), "{wanted}: {}", ended.err);
    }
}
