# shellcheck shell=bash
# A mirror that speaks TLS and asks for a password: its certificate is made by stopover dev-certificate, the authority is
# put in place by stopover client --ca, and the one user's password is the one that Stopover makes up.

secure_tests() {
  begin secure
  secure_address=127.0.0.1:$(free_port)
  secure_root=$work/secure-root
  check a_mirror_begins_with_a_certificate_and_a_password_of_its_own
  check nobody_gets_in_without_the_authority_or_the_password
  check curl_pulls_over_http_1_and_2
  check skopeo_pulls_with_what_stopover_client_has_written
}

a_mirror_begins_with_a_certificate_and_a_password_of_its_own() {
  "$STOPOVER_BIN" dev-certificate --host 127.0.0.1 --out "$work/secure-tls"
  printf '[http]\naddr = "%s"\n[tls]\ncertificate = "%s/tls.crt"\nkey = "%s/tls.key"\n[access]\nhtpasswd = "%s/secure.htpasswd"\n[upstream]\nurl = "http://%s"\n[storage]\nroot = "%s/secure-registry"\n[admin]\naddr = "off"\n' \
    "$secure_address" "$work/secure-tls" "$work/secure-tls" "$work" "$hub_address" "$work" >"$work/secure.toml"
  start secure "$STOPOVER_BIN" serve --config "$work/secure.toml"
  await secure curl -fsS --cacert "$work/secure-tls/ca.crt" "https://$secure_address/"
  [[ -n $(secure_password) ]]
}

nobody_gets_in_without_the_authority_or_the_password() {
  equal "curl's error without the authority" 60 "$(curl -sS "https://$secure_address/v2/" >/dev/null 2>&1 || echo $?)"
  equal "status without a password" 401 "$(secure_curl -o /dev/null -w '%{http_code}' "https://$secure_address/v2/")"
  equal "status with a wrong one" 401 \
    "$(secure_curl -u docker:wrong -o /dev/null -w '%{http_code}' "https://$secure_address/v2/")"
  equal "status of plain HTTP" 400 "$(curl -sS -o /dev/null -w '%{http_code}' "http://$secure_address/v2/")"
}

curl_pulls_over_http_1_and_2() {
  local digest version
  digest=$(jq -r ".layers[0].digest" "$work/right.manifest")
  for version in 1.1 2; do
    secure_curl "--http$version" -u "docker:$(secure_password)" -w '%{stderr}%{http_version}' -o "$work/secure-layer" \
      "https://$secure_address/v2/$IMAGE/blobs/$digest" 2>"$work/secure-version"
    equal "version" "$version" "$(<"$work/secure-version")"
    equal "content" "$digest" "$(digest_of "$work/secure-layer")"
  done
}

skopeo_pulls_with_what_stopover_client_has_written() {
  mkdir "$secure_root"
  "$STOPOVER_BIN" client podman --mirror "https://$secure_address" --ca "$work/secure-tls/ca.crt" --root "$secure_root" --write
  skopeo --insecure-policy copy --src-creds "docker:$(secure_password)" \
    --src-cert-dir "$secure_root/etc/containers/certs.d/$secure_address" \
    "docker://$secure_address/$SMALL-skopeo:latest" "dir:$work/secure-skopeo"
  read_manifest "docker://$hub_address/$SMALL-skopeo:latest" >"$work/secure-manifest"
  equal "manifest" "$(digest_of "$work/secure-manifest")" "$(digest_of "$work/secure-skopeo/manifest.json")"
}

secure_curl() {
  curl -sS --cacert "$work/secure-tls/ca.crt" "$@"
}

# Stopover says the password once, when it makes the file.
secure_password() {
  sed -n 's/.*"\?password"\?[=:] \?"\?\([A-Za-z0-9_-]\{8,\}\)"\?.*/\1/p' "$work/secure.log" | head -n 1
}
