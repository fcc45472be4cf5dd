#!/bin/sh
# Who has no good certificate gets no further than the handshake, is named in the log with a reason, and disturbs nobody.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/world.sh"
e2e_begin certificates
make_world 4 'limits: {heartbeat: 1s}'
rounds=1000000 job long 1
submit long

# A second authority, and a certificate of the first one that has run out.
cohortctl pki init "$work/foreign" --name "Another authority" >/dev/null
cohortctl pki issue "$work/foreign" agent stranger >/dev/null
cohortctl pki issue "$work/pki" agent newcomer >/dev/null
sign_past() { # NAME: an old certificate for the key of NAME
    cat >"$work/ca.cnf" <<CONFIG
[ca]
default_ca = d
[d]
database = $work/ca.index
serial = $work/ca.serial
new_certs_dir = $work
default_md = sha256
policy = p
crlnumber = $work/ca.number
[p]
commonName = supplied
CONFIG
    : >"$work/ca.index"
    echo 7001 >"$work/ca.serial"
    echo 7001 >"$work/ca.number"
    openssl req -new -key "$work/pki/$1.key" -subj "/CN=$1" -out "$work/$1.csr" 2>/dev/null &&
        openssl ca -batch -notext -config "$work/ca.cnf" -keyfile "$work/pki/ca.key" -cert "$work/pki/ca.crt" -in "$work/$1.csr" \
            -startdate 20200101000000Z -enddate 20210101000000Z -out "$work/old.crt" 2>/dev/null || die "openssl ca"
}
sign_past site-04

dial() { # OPTION...: a TLS client; whatever it says, the coordinator's log is what counts
    timeout 5 openssl s_client -connect "127.0.0.1:$port" -servername localhost -CAfile "$work/pki/ca.crt" "$@" \
        </dev/null >"$work/dial.out" 2>&1
}
with() { echo "-cert $1 -key $2"; }
pki=$work/pki
dial -alpn cohort/1 -tls1_2
expect_log cohortd 'never opened.*\[203 '
dial -alpn cohort/1 -tls1_2 -cert "$work/old.crt" -key "$pki/site-04.key"
expect_log cohortd 'never opened.*\[204 '
dial -alpn cohort/1 -tls1_2 -cert "$work/foreign/stranger.crt" -key "$work/foreign/stranger.key"
expect_log cohortd 'never opened.*\[205 '
dial -alpn http/1.1 -tls1_2 -cert "$pki/site-04.crt" -key "$pki/site-04.key"
expect_log cohortd 'never opened.*\[207 '
dial -tls1_2 -cert "$pki/site-04.crt" -key "$pki/site-04.key"
dial -alpn cohort/1 -tls1_1 -cipher 'ALL@SECLEVEL=0' -cert "$pki/site-04.crt" -key "$pki/site-04.key"
expect_log cohortd 'never opened.*\[215 '
dial -alpn cohort/1 -tls1_2 -cert "$pki/newcomer.crt" -key "$pki/newcomer.key"
expect_log cohortd 'newcomer.*not admitted.*\[211 '

# As agents see it: each keeps trying, and says why.
agent_as() { # CA CERTIFICATE KEY HOST; each with a state folder of its own: a ledger belongs to a certificate
    agents_config 1 1
    sed "s|ca: pki/ca.crt, crl: pki/ca.crl|ca: $1|; s|pki/site-{nn}.crt|$2|; s|pki/site-{nn}.key|$3|; s|host: localhost|host: $4|; s|state: sites|state: as-$4-$(basename "$2")-$(dirname "$1")|" \
        "$work/agents.yaml" >"$work/one.yaml"
    mv "$work/one.yaml" "$work/agents.yaml"
    : >"$work/agents.log"
    start_agents
}
agent_as pki/ca.crt pki/newcomer.crt pki/newcomer.key localhost
expect_log agents '\[211 not-enrolled\]'
kill_hard "$agents"
agent_as foreign/ca.crt pki/site-01.crt pki/site-01.key localhost
expect_log agents '\[205 tls-foreign-ca\]'
kill_hard "$agents"
agent_as pki/ca.crt pki/site-01.crt pki/site-01.key 127.0.0.1
expect_log agents '\[208 tls-host-name\]'
kill_hard "$agents"

chmod 0640 "$pki/site-01.key"
agents_config 1 1
expect_run 1 'site-01.key.*\[201 tls-key-mode\]' cohort-agent --config "$work/agents.yaml"
expect_run 78 'site-01.key.*\[201 tls-key-mode\]' cohort-agent --config "$work/agents.yaml" --check-config
chmod 0600 "$pki/site-01.key"
chmod 0644 "$pki/cohortd.key"
sed 's|state: state|state: other|; s|cohortd.sock|other.sock|; s|port: [0-9]*|port: 0|' "$work/cohortd.yaml" >"$work/other.yaml"
expect_run 78 'cohortd.key.*\[201 tls-key-mode\]' cohortd --config "$work/other.yaml" --check-config
expect_run 1 'cohortd.key.*\[201 tls-key-mode\]' cohortd --config "$work/other.yaml"
chmod 0600 "$pki/cohortd.key"

# Everyone else has gone on meanwhile; and a revocation cuts whoever is connected, and nobody else.
: >"$work/agents.log"
agents_config 1 3
start_agents
connected() { [ "$(cohortctl --json status | sed -n 's/.*"agents_connected": *\([0-9]*\).*/\1/p')" = "$1" ]; }
wait_for 10 connected 3 || die "three agents are not connected"
before=$(job_field round long)
cohortctl pki revoke "$pki" site-02 >/dev/null || die "pki revoke"
kill -HUP "$coordinator"
expect_log cohortd 'site-02.*\[206 tls-revoked\]'
wait_for 10 connected 2 || die "the revoked agent is still connected"
ok "the others stay connected"
past() { [ "$(job_field round long)" -gt "$1" ]; }
wait_for 10 past "$((before + 3))" || die "no rounds after the revocation"
ok "rounds went on: $before, now $(job_field round long)"

# An expired list is refused at reload: the running one stays, and with it everybody.
cp "$pki/ca.crl" "$work/good.crl"
sign_past site-04
openssl ca -gencrl -config "$work/ca.cnf" -keyfile "$pki/ca.key" -cert "$pki/ca.crt" \
    -crl_lastupdate 20200101000000Z -crl_nextupdate 20210101000000Z -out "$pki/ca.crl" 2>/dev/null || die "openssl ca -gencrl"
expect_run 78 'ca.crl.*\[213 tls-crl\]' cohortd --config "$work/other.yaml" --check-config
expect_run 1 'ca.crl.*reason 213' cohortctl reload
kill -HUP "$coordinator"
expect_log cohortd 'ca.crl.*\[213 tls-crl\]'
cp "$work/good.crl" "$pki/ca.crl"
before=$(job_field round long)
wait_for 10 past "$before" || die "no rounds after the expired list"
ok "rounds went on: $before, now $(job_field round long)"
