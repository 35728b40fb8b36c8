package format

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kinds of objects that hold certificates in a field of their own.
const (
	validating     = "ValidatingWebhookConfiguration"
	mutating       = "MutatingWebhookConfiguration"
	definition     = "CustomResourceDefinition"
	apiService     = "APIService"
	signingRequest = "CertificateSigningRequest"
	trustBundle    = "ClusterTrustBundle"
)

var bundleKinds = []string{validating, mutating, definition, apiService, signingRequest, trustBundle}

// fields are the decoded fields of the kinds above.
type fields struct {
	webhooks []kubeWebhook
	spec     kubeSpec
	status   kubeStatus
}

// readBundles reads the trust bundles of servers that the API server calls (webhooks and
// API services), the bundle of a ClusterTrustBundle, and the certificate that was issued
// for a CertificateSigningRequest.
func (m *manifest) readBundles(kind string, name *kubeName, f fields) {
	if !slices.Contains(bundleKinds, kind) {
		return
	}
	object := unique(m.names, strings.TrimPrefix(name.Namespace+"/"+name.Name, "/"))
	at := func(field string) *Location { return &Location{Object: object, Entry: field} }
	switch kind {
	case validating, mutating:
		for i, w := range f.webhooks {
			label := w.Name
			if label == "" {
				label = fmt.Sprint(i + 1)
			}
			m.encoded(at(label+"/caBundle"), w.ClientConfig.CABundle)
		}
	case definition:
		m.encoded(at("caBundle"), f.spec.Conversion.Webhook.ClientConfig.CABundle)
	case apiService:
		m.encoded(at("caBundle"), f.spec.CABundle)
	case signingRequest:
		m.encoded(at("certificate"), f.status.Certificate)
		if m.with.Documents {
			m.encoded(at("request"), f.spec.Request)
		}
	case trustBundle:
		if m.reserve(len(f.spec.TrustBundle)) {
			m.entry(at("trustBundle"), []byte(f.spec.TrustBundle), true)
		}
	}
}

// encoded reads a field in Base64. A field with white space only is a placeholder: another
// program (such as the CA injector of cert-manager) fills in the bundle later.
func (m *manifest) encoded(in *Location, text string) {
	if text == "" || !m.reserve(len(text)) {
		return
	}
	content, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		m.add(Part{Err: errBadBase64, In: in})
		return
	}
	if len(bytes.TrimSpace(content)) > 0 {
		m.entry(in, content, true)
	}
}

// bundlesFromYAML fills the fields of [fields]. Errors are ignored, because objects of other
// kinds have fields of the same name and another shape.
func (m *manifest) bundlesFromYAML(key string, v *yaml.Node, o *kubeObject[*yaml.Node]) {
	switch key {
	case "webhooks":
		for _, n := range resolved(v).Content {
			var w kubeWebhook
			_ = m.webhook(n, &w)
			o.Webhooks.value = append(o.Webhooks.value, w)
			if m.entries++; m.full() {
				return
			}
		}
	case "status":
		_ = m.texts(v, map[string]*string{"certificate": &o.Status.value.Certificate})
	case "spec":
		s := &o.Spec.value
		_ = m.eachPair(v, func(key string, v *yaml.Node) error {
			if key == "conversion" {
				return m.eachPair(v, func(key string, v *yaml.Node) error {
					if key == "webhook" {
						return m.webhook(v, &s.Conversion.Webhook)
					}
					return nil
				})
			}
			if into := map[string]*string{"caBundle": &s.CABundle, "request": &s.Request, "trustBundle": &s.TrustBundle}[key]; into != nil {
				return m.scalar(v, into)
			}
			return nil
		})
	}
}

// webhook reads the name and the trust bundle of one webhook.
func (m *manifest) webhook(n *yaml.Node, w *kubeWebhook) error {
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		switch key {
		case "name":
			return m.scalar(v, &w.Name)
		case "clientConfig":
			return m.texts(v, map[string]*string{"caBundle": &w.ClientConfig.CABundle})
		}
		return nil
	})
}
