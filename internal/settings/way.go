package settings

import (
	"errors"
	"net/url"
	"strings"
	"time"
)

// way checks the trust bundle and the proxy of one side. Both are only for TLS: without it
// there is no certificate to verify, and no tunnel to ask for.
func (p *parser) way(section, ca string, proxy Text, urls []string) {
	caKey, proxyKey := section+".ca_cert_file", section+".proxy_url"
	cleartext := !p.out.TLS.Enabled
	for _, u := range urls {
		cleartext = cleartext || strings.HasPrefix(strings.ToLower(u), "http://")
	}
	if ca != "" && cleartext {
		p.fail(caKey, "goes with https:// and TLS__ENABLED=true only")
	} else if ca != "" {
		p.roots(caKey, ca, time.Now())
	}
	switch {
	case proxy.isZero():
	case cleartext:
		p.fail(proxyKey, "goes with https:// and TLS__ENABLED=true only: a proxy is asked for a tunnel, and nothing else")
	default:
		if _, err := proxy.URL(); err != nil {
			p.fail(proxyKey, err.Error())
		}
	}
}

// URL returns the value as the address of a proxy, or nil if there is none. The error never
// quotes the value, because there may be a password in it.
func (t Text) URL() (*url.URL, error) {
	if t.isZero() {
		return nil, nil
	}
	text, err := t.Read()
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(strings.TrimSpace(text.Expose()))
	switch {
	case err != nil:
		return nil, errors.New("is not a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("must start with http:// or https://")
	case u.Hostname() == "":
		return nil, errors.New("has no host")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("must end with its port")
	}
	return u, nil
}
