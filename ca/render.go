package ca

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"text/template"
	"time"

	"go.step.sm/crypto/jose"
)

// configText is pki.yaml as init writes it: its comments are the documentation
// that an operator has at hand at night.
const configText = `# Configuration of the authority. "serve" reads it at start and at SIGHUP; a file
# that is not valid is refused as a whole, and a running authority keeps the old one.
# Unknown keys are errors. Durations are written like 10s, 5m or 24h.

# Part of the subjects of the authority's certificates.
name: {{json .Opt.Name}}

# Where "serve" listens.
address: {{json .Opt.Address}}

# Where "serve" answers /metrics and /readyz, in cleartext: keep it on loopback.
{{if .Opt.Metrics}}metrics: {{json .Opt.Metrics}}{{else}}# metrics: "127.0.0.1:9444"{{end}}

# Names and IP addresses that clients reach the authority by. They are the names
# of its own certificate; enrolment tokens are made for the first of them.
dns_names: {{list .Opt.DNSNames}}

# Where the encrypted root key is, if not in secrets/. It is read only to make a
# new intermediate, so it may be on a disk that is usually in a safe.
{{if .RootKey}}root_key: {{json .RootKey}}{{else}}# root_key: /media/safe/root.key{{end}}

# How long certificates live, unless a profile says otherwise. A request may ask
# for less than the default, down to min; for more than max it is refused.
# Certificates are renewed at two thirds of their life, so a short life is cheap.
# grace is how long after its end a certificate can still be renewed with its key,
# after a long outage for instance: three lifetimes if absent, 72h at most, 0s never.
lifetime:
  default: {{.Life.Default}}
  min: {{.Life.Min}}
  max: {{.Life.Max}}
  # grace: 72h

# Who may sign enrolment tokens. JWK is the only type so far: key is the public
# key; the private one is in secrets/<name>.jwe, encrypted with the key password.
# publish_encrypted_key: true serves that file to everyone, as "step ca token"
# expects it without --key; whoever fetches it can try passwords at leisure.
provisioners:
  - type: JWK
    name: {{json .Provisioner}}
    key: {{json .Key}}

# What each service may obtain: exactly the names listed, nothing else. A service
# without a profile obtains nothing. Names are DNS names (underscores are fine,
# wildcards are not), IP addresses, and URIs such as spiffe://artstore/ingester.
#   usages:    server, client; both if absent
#   key_types: EC-P256, EC-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096; all but RSA-2048 if absent
#   lifetime:  default, min, max, grace; those above where absent
profiles:
{{- range $service, $p := .Opt.Profiles}}
  {{json $service}}:
    names: {{list $p.Names}}
{{- if $p.Usages}}
    usages: {{list $p.Usages}}
{{- end}}{{if $p.KeyTypes}}
    key_types: {{list $p.KeyTypes}}
{{- end}}{{with $p.Lifetime}}{{if or .Default .Min .Max .Grace}}
    lifetime: {default: {{.Default}}, min: {{.Min}}, max: {{.Max}}{{if .Grace}}, grace: {{.Grace}}{{end}}}
{{- end}}{{end}}
{{- end}}
`

// renderConfig writes pki.yaml for the options. Strings are written as JSON,
// which YAML reads as it is: nothing in an option can become structure.
func renderConfig(opt InitOptions, key *jose.JSONWebKey) ([]byte, error) {
	public, err := key.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding the enrolment key: %w", err)
	}
	rootKey := opt.OfflineRoot
	if rootKey != "" {
		if rootKey, err = filepath.Abs(rootKey); err != nil {
			return nil, fmt.Errorf("finding %s: %w", opt.OfflineRoot, err)
		}
	}
	quote := func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	}
	t, err := template.New(configFile).Funcs(template.FuncMap{"json": quote, "list": quote}).Parse(configText)
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]any{
		"Opt": opt, "RootKey": rootKey, "Key": string(public), "Provisioner": enrolment,
		"Life": lifetimes{Default: opt.LeafLifetime, Max: max(opt.LeafLifetime, 7*24*time.Hour)}.or(lifetimes{}),
	})
	if err != nil {
		return nil, fmt.Errorf("writing the configuration: %w", err)
	}
	return b.Bytes(), nil
}
