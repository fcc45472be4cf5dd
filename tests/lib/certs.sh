#!/bin/sh
# Certificates for tests, by the openssl command line:  certs.sh DIR
#
#   ca        the authority                         other   another authority of another name
#   server    DNS localhost and coordinator.test    site-1 site-2  agents
#   expired future revoked   agents gone wrong      foreign  issued by other
#   rsa       an agent with an RSA key              self     self-signed
#   mid       an authority under ca                 nested   an agent issued by mid (certificate, then mid's)
#   nocrl     an authority that may not sign lists  weak     a certificate signed with SHA-1
# Each NAME.crt and NAME.key (mode 0600). ca.crl (revokes `revoked`), stale.crl (expired), other.crl, nocrl.crl.
set -eu
dir=$1
mkdir -p "$dir"
cd "$dir"
umask 077
exec 2>openssl.log

key() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"
}
authority() { # NAME, key usage
    mkdir -p "$1.d"
    : >"$1.d/index"
    echo 1000 >"$1.d/serial"
    echo 01 >"$1.d/crlnumber"
    cat >"$1.cnf" <<END
[req]
prompt = no
distinguished_name = name
[name]
CN = $1
[authority]
basicConstraints = critical, CA:true
keyUsage = critical, $2
[agent]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = clientAuth
[server]
basicConstraints = critical, CA:false
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:coordinator.test
[ca]
default_ca = here
[here]
database = $1.d/index
serial = $1.d/serial
crlnumber = $1.d/crlnumber
new_certs_dir = $1.d
certificate = $1.crt
private_key = $1.key
default_md = sha256
policy = anything
unique_subject = no
[anything]
commonName = supplied
END
}
root() {
    authority "$1" "$2"
    key "$1"
    openssl req -x509 -new -key "$1.key" -config "$1.cnf" -extensions authority -subj "/CN=$1" -days 3650 -sha256 -out "$1.crt"
}
issue() { # AUTHORITY NAME EXTENSIONS FROM UNTIL [openssl ca options]
    authority_=$1 name_=$2 extensions_=$3 from_=$4 until_=$5
    shift 5
    [ -f "$name_.key" ] || key "$name_"
    openssl req -new -key "$name_.key" -config "$authority_.cnf" -subj "/CN=$name_" -out "$name_.csr"
    openssl ca -batch -notext -config "$authority_.cnf" -extensions "$extensions_" -startdate "$from_" -enddate "$until_" \
        -in "$name_.csr" -out "$name_.crt" "$@"
}
past=20200101000000Z
now=$(date -u -d '-1 day' +%Y%m%d%H%M%SZ)
later=$(date -u -d '+2 years' +%Y%m%d%H%M%SZ)
future=$(date -u -d '+1 year' +%Y%m%d%H%M%SZ)

root ca 'keyCertSign, cRLSign'
root other 'keyCertSign, cRLSign'
root nocrl keyCertSign
issue ca server server "$now" "$later"
issue ca server-2 server "$now" "$later"
for name in site-1 site-2 revoked; do
    issue ca $name agent "$now" "$later"
done
issue ca expired agent "$past" 20200201000000Z
issue ca future agent "$future" "$later"
issue other foreign agent "$now" "$later"
issue other foreign-server server "$now" "$later"
openssl genrsa -out rsa.key 2048
issue ca rsa agent "$now" "$later"
issue ca weak agent "$now" "$later" -md sha1
key self
openssl req -x509 -new -key self.key -config ca.cnf -extensions agent -subj /CN=self -days 30 -sha256 -out self.crt
authority mid 'keyCertSign, cRLSign'
issue ca mid authority "$now" "$later"
issue mid nested agent "$now" "$later"
cat mid.crt >>nested.crt
openssl ca -config ca.cnf -revoke revoked.crt
openssl ca -config ca.cnf -gencrl -crldays 30 -out ca.crl
openssl ca -config ca.cnf -gencrl -crl_lastupdate "$past" -crl_nextupdate 20200201000000Z -out stale.crl
openssl ca -config other.cnf -gencrl -crldays 30 -out other.crl
openssl ca -config nocrl.cnf -gencrl -crldays 30 -out nocrl.crl
cp site-1.key open.key
chmod 0644 open.key
# The first lines of a key, so that it does not parse.
head -n 2 site-1.key >broken.key
