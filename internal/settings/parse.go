package settings

import (
	"errors"
	"slices"
	"strings"
	"time"
)

// tokenPath is the path of the token endpoint below the base URL of the Admin Module.
const tokenPath = "/api/v1/auth/token" //nolint:gosec // G101: a path of the Python Admin Module

// parser turns texts into settings, and collects all problems instead of the first one.
type parser struct {
	collected *Collected
	out       *Settings
	wrong     []error
	// bad has the keys with a problem. What depends on them is not checked, so that one
	// mistake is reported once.
	bad map[string]bool
}

// Parse returns the settings, or all mistakes in them as one error: a [*Problem] for each
// setting, and an error for each line of the file that is no setting. It reads certificate
// files and checks them, and opens no connection.
func (s *Collected) Parse() (*Settings, error) {
	p := &parser{collected: s, out: new(Settings), wrong: append([]error(nil), s.problems...), bad: map[string]bool{}}
	for _, r := range Table() {
		p.value(s.found[r.Key])
	}
	p.account()
	p.endpoints()
	p.ciphers()
	p.identity(time.Now())
	p.way("admin_module", p.out.Token.CA, p.out.Token.Proxy, []string{p.out.Token.URL})
	p.way("storage_element", p.out.Storage.CA, p.out.Storage.Proxy, p.out.Storage.URLs)
	slices.SortStableFunc(p.wrong, func(a, b error) int { return rank(a) - rank(b) })
	if err := errors.Join(p.wrong...); err != nil {
		return nil, err
	}
	return p.out, nil
}

// rank orders problems as the table does. Those of the file and of unknown names come first.
func rank(err error) int {
	problem, ok := errors.AsType[*Problem](err)
	if !ok {
		return -1
	}
	return slices.IndexFunc(Table(), func(r Setting) bool { return r.Variable() == problem.Name })
}

// value parses one text. A file with a value is not read yet: [Text.Read] does, each time.
func (p *parser) value(a assignment) {
	switch t, isText := a.row.target(p.out).(*Text); {
	case a.text == "":
	case a.isPath && isText:
		t.File = a.text
	default:
		if err := a.row.parse(a.text, p.out); err != nil {
			for line := range strings.Lines(err.Error()) {
				p.fail(a.row.Key, strings.TrimSpace(line))
			}
		}
	}
}

// fail reports a problem of the setting with this key, and what set it.
func (p *parser) fail(key, text string) {
	a := p.collected.found[key]
	origin := a.origin
	if a.text == "" {
		origin = ""
	}
	p.bad[key] = true
	p.wrong = append(p.wrong, &Problem{Name: a.row.Variable(), Origin: origin, Text: text})
}

// missing reports a setting that is required, and all ways to set it.
func (p *parser) missing(key string) {
	r := p.collected.found[key].row
	ways := []string{r.Variable()}
	if r.FromFile() {
		ways = append(ways, r.Variable()+FileSuffix)
	}
	for _, flag := range []string{r.Flag, r.FileFlag} {
		if flag != "" {
			ways = append(ways, "--"+flag)
		}
	}
	if strings.HasPrefix(key, "tls.") {
		ways = append(ways, "or ARTSTORE_PKI_CA_URL instead of files")
	}
	p.fail(key, "is missing: want "+strings.Join(ways, ", "))
}

// account checks that each method has the credentials it needs, and no others: a secret that
// is not used is a mistake, and a risk.
func (p *parser) account() {
	a, method := p.out.Account, p.out.Account.Method
	for _, t := range []struct {
		key    string
		text   Text
		wanted bool
	}{
		{"service_account.client_id", a.ID, true},
		{"service_account.client_secret", a.Secret, method == "post" || method == "basic"},
		{"service_account.client_key", a.Key, method == "private_key_jwt"},
	} {
		switch {
		case t.text.isZero():
			if t.wanted {
				p.missing(t.key)
			}
		case !t.wanted && !p.bad["service_account.auth_method"]:
			p.fail(t.key, "is not used by SERVICE_ACCOUNT__AUTH_METHOD="+method)
		default:
			if _, err := t.text.Read(); err != nil {
				p.fail(t.key, err.Error())
			}
		}
	}
	if method != "post" && method != "" && p.out.Token.Dialect == "json" {
		p.fail("service_account.auth_method", method+" needs ADMIN_MODULE__DIALECT=form: the JSON endpoint reads a secret from the body and nothing else")
	}
	if method == "tls_client_auth" && !p.out.TLS.Enabled {
		p.fail("service_account.auth_method", "tls_client_auth proves the account by its certificate: it needs TLS")
	}
	if p.out.Account.Scope != "" && p.out.Token.Dialect == "json" {
		p.fail("service_account.scope", "needs ADMIN_MODULE__DIALECT=form: the JSON endpoint reads no scope")
	}
}

// endpoints decides which addresses are used. http:// is accepted only if cleartext is
// permitted explicitly, because secret, tokens and files would be readable on the way.
func (p *parser) endpoints() {
	t := &p.out.Token
	used := map[string][]string{"storage_element.base_url": p.out.Storage.URLs}
	if t.URL != "" {
		used["admin_module.token_url"] = []string{t.URL}
	} else {
		used["admin_module.base_url"] = []string{t.AdminURL}
		t.URL = strings.TrimSuffix(t.AdminURL, "/") + tokenPath
	}
	switch n := len(p.out.Storage.URLs); {
	case p.out.Storage.Registry == "" && n == 0:
		p.missing("storage_element.base_url")
	case p.out.Storage.Registry != "" && n > 0:
		p.fail("admin_module.registry_url", "lists Storage Elements, and STORAGE_ELEMENT__BASE_URL names some: want one of the two")
	case p.out.Storage.Registry != "":
		used["admin_module.registry_url"] = []string{p.out.Storage.Registry}
	}
	for key, urls := range used {
		if p.bad[key] {
			continue
		}
		for _, u := range urls {
			p.scheme(key, strings.HasPrefix(strings.ToLower(u), "http://"))
		}
	}
	if !p.out.TLS.Enabled && !p.out.TLS.AllowCleartext && !p.bad["tls.enabled"] {
		p.fail("tls.enabled", "false means that secret, tokens and files travel readable: permit it by name with TLS__ALLOW_CLEARTEXT=true")
	}
}

// scheme checks that an address and the TLS settings agree.
func (p *parser) scheme(key string, cleartext bool) {
	switch {
	case cleartext && !p.out.TLS.AllowCleartext:
		p.fail(key, "is http://, so secret and tokens would travel readable: want https://, or permit it by name with TLS__ALLOW_CLEARTEXT=true")
	case !cleartext && !p.out.TLS.Enabled:
		p.fail(key, "is https://, and TLS__ENABLED is false: want http://")
	}
}
