package setup

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/template"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/keystore"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
)

// configText is the template of pki.yaml. Its comments are the documentation that an
// operator has at hand without this repository, so each key of [policy.Config] is in
// it, as a comment if it has no value.
const configText = `# Configuration of the authority. "serve" reads it at start and at SIGHUP; a file
# that is not valid is refused as a whole, and a running authority keeps the old one.
# Unknown keys are errors. Lengths of time are written like 10s, 5m, 24h, 90d or 1y.

# Part of the subjects of the authority's certificates.
name: {{json .Opt.Name}}

# Where "serve" listens.
address: {{json .Opt.Address}}

# Where "serve" answers /metrics and /readyz, in cleartext: keep it on loopback.
{{if .Opt.Metrics}}metrics: {{json .Opt.Metrics}}{{else}}# metrics: "127.0.0.1:9444"{{end}}

# Where "serve" answers GET /crl in cleartext, for programs that fetch revocation
# lists by themselves: a list is signed and public. crl_url is the address that new
# certificates name for it (the issuer is put behind it); both are off if absent.
# crl_address: "0.0.0.0:9480"
# crl_url: http://ca.example:9480/crl

# Where the record is: a file in this directory (pki.db if absent), or a PostgreSQL
# database that several authorities share. It holds no password (passfile= names a
# file with it, so does PGPASSFILE), and on another machine the server is verified.
# "artstore-pki migrate" copies a record from one to the other. Read at start only.
{{if .Opt.Database}}database: {{json .Opt.Database}}{{else}}# database: "postgres://pki@db.internal/pki?sslmode=verify-full&sslrootcert=/etc/pki/db.crt&passfile=/etc/pki/pgpass"{{end}}

# Names and IP addresses that clients reach the authority by. They are the names
# of its own certificate; enrolment tokens are made for the first of them.
dns_names: {{list .Opt.DNSNames}}

# The port that clients reach it at, if a proxy or a container gives it another one
# than that of address: step takes it from the token.
# public_port: 443

# Where the encrypted root key is, if not in secrets/. It is read only to make a
# new intermediate, so it may be on a disk that is usually in a safe. A key in a token
# or a cloud is named by its URI; a PIN is in a file that pin-source names. Keys of new
# intermediates are made in secrets/, or in the key store that intermediate_key names.
# This program has the key stores that it was built with (go build -tags pkcs11).
#   root_key: "pkcs11:token=pki;object=root?pin-source=/etc/pki/pin"
{{if .RootKey}}root_key: {{json .RootKey}}{{else}}# root_key: /media/safe/root.key{{end}}
{{if .IntermediateKey}}intermediate_key: {{json .IntermediateKey}}{{else}}# intermediate_key: "pkcs11:token=pki?pin-source=/etc/pki/pin"{{end}}

# How long certificates live, unless a profile says otherwise. A request that names
# an end gets exactly that, if the life is between min and max, and is refused
# otherwise; one that names none gets the default.
# Certificates are renewed at two thirds of their life, so a short life is cheap.
# grace is how long after its end a certificate can still be renewed with its key,
# after a long outage for instance: three lifetimes if absent, 72h at most, 0s never.
lifetime:
  default: {{.Life.Default}}
  min: {{.Life.Min}}
  max: {{.Life.Max}}
  # grace: 72h

# Which kinds of keys services may have, unless a profile says otherwise: EC-P256,
# EC-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096; all but RSA-2048 if absent.
{{if .Opt.LeafKeyTypes}}key_types: {{list .Opt.LeafKeyTypes}}{{else}}# key_types: [EC-P256, Ed25519]{{end}}

# How often may be asked: by one address (IPv6 by /64), and by one service with its
# certificate. burst is how many at once. A token or certificate that is no good
# counts as a twentieth of the burst. Who asks too often gets 429 with Retry-After.
# These are the numbers if absent; per_second: 0 is no limit. connections is how many
# may be open at once, connections_per_address how many of them by one address (IPv6
# by /64); a further one of that address is closed at once. Behind a proxy all
# clients have one address: set it to the number of connections there. watchers is how
# many services may wait for changes; their connections do not count in the others.
# limits:
#   per_address: {per_second: 1000, burst: 2000}
#   per_service: {per_second: 200, burst: 1000}
#   per_enroller: {per_second: 5, burst: 100}    # tokens, see enrollers
#   connections: 1024
#   connections_per_address: 256
#   watchers: 10000

# A file that gets a line of JSON for each certificate issued or revoked and each
# request refused. SIGHUP opens it anew, after logrotate has renamed it.
# audit_log: audit.jsonl

# Who may obtain certificates, by what proof. Three types. The key
# profiles, a list such as [ingester, storage-element-01], ties an entry of type JWK
# or X5C to services: its tokens are refused for others, so a key that a deployment
# system has cannot enrol the rest. Absent means all.
#
# JWK: whoever has the private key signs enrolment tokens. key is the public key;
# the private one is in secrets/<name>.jwe, encrypted with the key password.
# publish_encrypted_key: true serves that file to everyone, as "step ca token"
# expects it without --key; whoever fetches it can try passwords at leisure.
# "artstore-pki enrolment-key rotate" replaces the key. It keeps the old one here, so
# that tokens which were handed out stay good: previous: [{key: '...', until: TIME}].
#
# X5C: whoever has a certificate gets others for names of its own, until its own
# end (step ca certificate --x5c-cert). roots is a PEM file, from here, of what it
# must chain to; without it, the roots of this authority.
#   - type: X5C
#     name: devices
#     roots: certs/devices.pem
#
# ACME: whoever answers challenges for the names of one profile that says
# acme: true (certbot, lego, step ca certificate --acme). One at most.
#   - type: ACME
#     name: acme                          # https://…/acme/acme/directory
#     challenges: [http-01, dns-01, tls-alpn-01]   # all three if absent
#     resolver: "10.0.0.53:53"            # DNS server; the system's if absent
#     http_port: 80                       # where http-01 is answered
#     tls_port: 443                       # where tls-alpn-01 is answered
#     networks: ["10.0.0.0/8"]            # where clients are; if absent, everywhere but at
#                                         # loopback, link-local and multicast addresses
#     require_eab: true                   # new accounts need a key: artstore-pki acme eab create
#     accounts_per_hour: 100              # that one address may make without such a key
provisioners:
  - type: JWK
    name: {{json .Provisioner}}
    key: {{json .Key}}

# Services that may read the record over HTTP (GET /records/certificates,
# /records/events, /log/entry/N) by showing their client certificate. Nobody if absent.
# auditors: [admin-module]

# Services that may rotate roots and intermediates and order renewals over HTTP
# (artstore-pki root … --ca-url URL), by showing their client certificate. Their key
# can do what the operator on this machine can. Nobody if absent.
# operators: [deployer]

# Services that may make enrolment tokens for others, and for which ones
# (artstore-pki token SERVICE --ca-url URL --cert DIR), by showing their client
# certificate. No enroller can enrol itself or another one. Nobody if absent.
# enrollers: {deployer: [ingester, storage-element-01]}

# What each service may obtain: the names listed, and nothing else. A service without
# a profile obtains nothing. Its name becomes the common name: 64 characters at most.
#   names:     DNS names (underscores are fine; internationalised names in their A-label
#              form xn--…), IP addresses, and URIs such as spiffe://artstore/ingester.
#              A token is for all of them unless it says otherwise
#   patterns:  further names that a request may ask for one by one, for services that
#              come and go: "*.workers.internal" (one label before the suffix),
#              "**.workers.internal" (one or more), networks such as "10.20.0.0/16",
#              "spiffe://artstore/workers/*" (one path segment) or "/**" (one or more).
#              doctor warns of patterns that take in names of another profile
#   wildcards: names such as "*.apps.internal" that a certificate may carry as they are;
#              it is then good for all names one label below, so few services need one
#   usages:    server, client; both if absent
#   key_types: as above, and those above if absent
#   lifetime:  default, min, max, grace; those above where absent
#   acme:      true lets ACME prove its names, except localhost and the like; an
#              order has names of one such profile, and names it if several have them
#   max_live:  certificates that may be valid at a time when one more is enrolled;
#              10000 if absent. Renewals are not refused.
#   max_live_per_lineage: certificates that may be valid at a time of one lineage,
#              which is a certificate with its renewals; 50 if absent, 1000 at most.
#              Renewing in a loop meets it. Instances that renew copies of one
#              certificate need two each; better, each enrols for itself.
profiles:
{{- range $service, $p := .Opt.Profiles}}
  {{json $service}}:
{{- if $p.Names}}
    names: {{list $p.Names}}
{{- end}}{{if $p.Patterns}}
    patterns: {{list $p.Patterns}}
{{- end}}{{if $p.Wildcards}}
    wildcards: {{list $p.Wildcards}}
{{- end}}
{{- if $p.Usages}}
    usages: {{list $p.Usages}}
{{- end}}{{if $p.KeyTypes}}
    key_types: {{list $p.KeyTypes}}
{{- end}}{{if $p.ACME}}
    acme: true
{{- end}}{{with $p.Lifetime}}{{if or .Default .Min .Max .Grace}}
    lifetime: {default: {{.Default}}, min: {{.Min}}, max: {{.Max}}{{if .Grace}}, grace: {{.Grace}}{{end}}}
{{- end}}{{end}}{{if $p.MaxLive}}
    max_live: {{$p.MaxLive}}
{{- end}}{{if $p.MaxLivePerLineage}}
    max_live_per_lineage: {{$p.MaxLivePerLineage}}
{{- end}}
{{- end}}
`

// renderConfig returns pki.yaml for the options. Strings and lists are written as
// JSON, which is a subset of YAML, so the text of an option cannot add a key. The path of
// the root key is made absolute: pki.yaml is read from other working directories.
// rootURI is where the root key is, if that is in a key store.
func renderConfig(opt Options, rootURI string, key *jose.JSONWebKey) ([]byte, error) {
	public, err := key.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding the enrolment key: %w", err)
	}
	intermediateKey := ""
	if opt.Intermediate.KMS != "" {
		if intermediateKey, err = keystore.Store(opt.Intermediate.KMS); err != nil {
			return nil, err
		}
	}
	rootKey := rootURI
	if opt.OfflineRoot != "" {
		if rootKey, err = filepath.Abs(opt.OfflineRoot); err != nil {
			return nil, fmt.Errorf("finding %s: %w", opt.OfflineRoot, err)
		}
	}
	quote := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}
	t, err := template.New(statedir.ConfigFile).Funcs(template.FuncMap{"json": quote, "list": quote}).Parse(configText)
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{
		"Opt": opt, "RootKey": rootKey, "IntermediateKey": intermediateKey, "Key": string(public), "Provisioner": enrolment,
		"Life": policy.Lifetimes{Default: opt.LeafLifetime, Max: max(opt.LeafLifetime, 7*24*time.Hour)}.WithDefaults(policy.Lifetimes{}),
	})
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return b.Bytes(), nil
}
