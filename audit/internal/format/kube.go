package format

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Kubernetes stores certificates in Secrets and ConfigMaps, and in the files that kubectl
// reads. The cost of a manifest is bounded before the decoders see it, because a decoder
// of YAML can take a hundred bytes of memory for one byte of text.

const (
	// maxManifest bounds a file, in bytes. Kubernetes limits a Secret to 1 MiB.
	maxManifest = 8 << 20
	// maxNodes bounds the values of one document. The characters that can separate
	// values are counted; none of them is in Base64, so certificates do not count.
	maxNodes = 200_000
	// maxEntries bounds the entries of all objects of a file, because aliases can
	// repeat an object of a thousand entries a thousand times.
	maxEntries = 20_000
	// maxBad bounds the documents that cannot be decoded.
	maxBad = 100
	// maxHeld bounds the same entries in bytes.
	maxHeld = 16 << 20
	// maxSteps bounds the keys of mappings of YAML that are looked at.
	maxSteps = 1_000_000
)

var (
	errLargeManifest = fmt.Errorf("it is larger than %d MiB, too much for a manifest", maxManifest>>20)
	errDenseManifest = fmt.Errorf("it has more than %d values in one document", maxNodes)
	errFullManifest  = fmt.Errorf("it holds more than %d entries, %d MiB or %d damaged documents; the rest was not read", maxEntries, maxHeld>>20, maxBad)
	errBadBase64     = errors.New("it is not in Base64")
)

var (
	apiVersion = []byte("apiVersion")
	// kubeKinds matches the kinds of objects whose fields are known. A document without
	// such a kind is not decoded; it is searched for PEM.
	kubeKinds   = regexp.MustCompile(`\bkind["']?\s*:\s*["']?(Config|List|(Secret|ConfigMap|` + strings.Join(bundleKinds, "|") + `)(List)?)\b`)
	documentEnd = regexp.MustCompile(`(?m)^(---|\.\.\.)(\s|$)`)
)

// isKube reports whether data is a manifest: it has a field apiVersion, and is not a PEM
// file with a comment that mentions one.
func isKube(head []byte) bool {
	return !bytes.HasPrefix(head, beginMarker) && bytes.Contains(head[:min(len(head), sniffed)], apiVersion) && kubeField.Match(head[:min(len(head), sniffed)])
}

var kubeField = regexp.MustCompile(`(^|[\n{,])\s*["']?apiVersion["']?\s*:`)

// kubeObject has the fields that are read of an object, from YAML and from JSON. T is the
// type of an item of a list before it is decoded.
type kubeObject[T any] struct {
	Kind       string              `json:"kind"`
	Metadata   kubeName            `json:"metadata"`
	Data       map[string]string   `json:"data"`
	StringData map[string]string   `json:"stringData"`
	BinaryData map[string]string   `json:"binaryData"`
	Clusters   []kubeConfigCluster `json:"clusters"`
	Users      []kubeConfigUser    `json:"users"`
	Items      []T                 `json:"items"`

	Webhooks lenient[[]kubeWebhook] `json:"webhooks"`
	Spec     lenient[kubeSpec]      `json:"spec"`
	Status   lenient[kubeStatus]    `json:"status"`
}

// lenient stays empty if the value has another shape, because objects of other kinds have
// fields of the same name.
type lenient[T any] struct{ value T }

// UnmarshalJSON returns no error.
func (l *lenient[T]) UnmarshalJSON(data []byte) error {
	if json.Unmarshal(data, &l.value) != nil {
		l.value = *new(T)
	}
	return nil
}

// kubeWebhook says how the API server reaches a webhook. The trust bundle is in Base64.
type kubeWebhook struct {
	Name         string `json:"name"`
	ClientConfig struct {
		CABundle string `json:"caBundle"`
	} `json:"clientConfig"`
}

// kubeSpec has the fields of APIService, CertificateSigningRequest, ClusterTrustBundle and
// CustomResourceDefinition.
type kubeSpec struct {
	CABundle    string `json:"caBundle"`
	Request     string `json:"request"`
	TrustBundle string `json:"trustBundle"` // PEM
	Conversion  struct {
		Webhook kubeWebhook `json:"webhook"`
	} `json:"conversion"`
}

type kubeStatus struct {
	Certificate string `json:"certificate"`
}

type kubeName struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// manifest is one file while it is read.
type manifest struct {
	with     *Context
	parts    []Part
	entries  int            // see maxEntries
	reserved int            // bytes, see maxHeld
	steps    int            // see maxSteps
	names    map[string]int // of objects, for unique
	line     int            // of the file, from 0, at which the present document begins
}

// parseKube reads a stream of documents in YAML or JSON. When a bound is reached, the last
// part says so, and the rest of the file is not read.
func parseKube(data []byte, with *Context) []Part {
	if len(data) > maxManifest {
		return []Part{{Err: errLargeManifest}}
	}
	m := &manifest{with: with, names: map[string]int{}}
	n, bad := 0, 0
	for line, doc := range documents(data) {
		n++
		m.line = line
		if !kubeKinds.Match(doc) {
			m.other(doc, fmt.Sprintf("document %d", n))
			continue
		}
		if err := m.readDocument(doc); err != nil {
			m.add(Part{Err: err, In: &Location{Object: fmt.Sprintf("document %d", n)}})
			bad++
		}
		if bad == maxBad || m.full() {
			m.add(Part{Err: errFullManifest, In: &Location{Object: "…"}})
			break
		}
	}
	return m.parts
}

// other reads the PEM in an object of any other kind, such as that of an operator.
func (m *manifest) other(doc []byte, object string) {
	switch {
	case ourMarker.Match(doc):
		m.parse(&Location{Object: object}, dropOddity(parsePEM(doc, m.with), false))
	case isArmourInBase64(doc):
		m.parse(&Location{Object: object}, parseArmourInBase64(doc, m.with))
	}
}

func (m *manifest) add(p Part) { m.parts = append(m.parts, p) }

// full reports whether a bound for the whole file is exceeded.
func (m *manifest) full() bool {
	return m.entries > maxEntries || m.reserved > maxHeld || m.steps > maxSteps
}

// documents splits a stream of YAML. It yields the number of lines before a document, and
// the document. A marker at the start of a line always ends a document (YAML 1.2.2
// §9.1.2), also inside a block scalar.
func documents(data []byte) iter.Seq2[int, []byte] {
	return func(yield func(int, []byte) bool) {
		line, start := 0, 0
		for _, at := range append(documentEnd.FindAllIndex(data, -1), []int{len(data)}) {
			doc := data[start:at[0]]
			if len(bytes.TrimSpace(doc)) > 0 && !yield(line, doc) {
				return
			}
			line += bytes.Count(doc, []byte("\n"))
			start = min(at[0]+3, len(data))
		}
	}
}

// readDocument decodes one document, in JSON or in YAML, unless it has too many values.
func (m *manifest) readDocument(doc []byte) error {
	nodes := 0
	for _, c := range []byte(",:-?{[&*!#|\n") {
		nodes += bytes.Count(doc, []byte{c})
	}
	if nodes > maxNodes {
		return errDenseManifest
	}
	if bytes.HasPrefix(bytes.TrimSpace(doc), []byte("{")) && json.Valid(doc) {
		return decodeObject(m, json.RawMessage(doc), func(item json.RawMessage, o *kubeObject[json.RawMessage]) error {
			return json.Unmarshal(item, o)
		})
	}
	var root yaml.Node
	// There is one document in doc at most, and none if doc has only comments: io.EOF.
	if err := yaml.NewDecoder(bytes.NewReader(doc)).Decode(&root); err != nil && !errors.Is(err, io.EOF) {
		return m.undecodable(err)
	}
	if len(root.Content) == 0 {
		return nil
	}
	return decodeObject(m, root.Content[0], m.fromYAML)
}

// decodeObject decodes an object and, if it is a list, its items. An item of a wrong shape
// does not hide the others, and the fields that were decoded before the fault are used.
func decodeObject[T any](m *manifest, doc T, decode func(T, *kubeObject[T]) error) error {
	var whole kubeObject[T]
	err := decode(doc, &whole)
	m.readObject(whole.Kind, &whole.Metadata, []map[string]string{whole.Data, whole.BinaryData}, whole.StringData)
	m.readConfig(whole.Kind, whole.Clusters, whole.Users)
	m.readBundles(whole.Kind, &whole.Metadata, fields{whole.Webhooks.value, whole.Spec.value, whole.Status.value})
	if !strings.HasSuffix(whole.Kind, "List") {
		whole.Items = nil
	}
	bad := 0
	for _, i := range whole.Items {
		var o kubeObject[T]
		if decode(i, &o) != nil {
			bad++
		}
		m.readObject(o.Kind, &o.Metadata, []map[string]string{o.Data, o.BinaryData}, o.StringData)
		m.readBundles(o.Kind, &o.Metadata, fields{o.Webhooks.value, o.Spec.value, o.Status.value})
		if m.entries++; m.full() {
			break
		}
	}
	switch {
	case err != nil:
		return m.undecodable(err)
	case bad > 0:
		return fmt.Errorf("%d of its %d items could not be read in full", bad, len(whole.Items))
	}
	return nil
}

var lineNumber = regexp.MustCompile(`\bline (\d+)`)

// undecodable returns an error that says in which line of the file a document is wrong.
// The error of the decoder is not passed on: it quotes the value, which may be a key.
func (m *manifest) undecodable(err error) error {
	found := lineNumber.FindStringSubmatch(err.Error())
	if found == nil {
		return errors.New("it could not be decoded")
	}
	line, _ := strconv.Atoi(found[1])
	return fmt.Errorf("it could not be decoded: near line %d something is wrong", m.line+line)
}

// readObject reads the entries of a Secret or a ConfigMap in the order of their names.
// encoded are maps with values in Base64, plain has values as they are. The values under
// data are plain in a ConfigMap and encoded in a Secret.
func (m *manifest) readObject(kind string, name *kubeName, encoded []map[string]string, plain map[string]string) {
	if kind == "ConfigMap" {
		plain, encoded[0] = encoded[0], nil
	} else if kind != "Secret" {
		return
	}
	object := unique(m.names, strings.TrimPrefix(name.Namespace+"/"+name.Name, "/"))
	keep := map[string][]byte{}
	for _, some := range encoded {
		for entry, text := range some {
			content, err := base64.StdEncoding.DecodeString(text)
			if err != nil && expectedEntry(entry) {
				m.add(Part{Err: errBadBase64, In: &Location{Object: object, Entry: entry}})
			}
			if keep[entry] = content; !m.reserve(len(text)) {
				return
			}
		}
	}
	for entry, text := range plain { // as in Kubernetes, stringData overrides data
		if keep[entry] = []byte(text); !m.reserve(len(text)) {
			return
		}
	}
	for _, entry := range sortedKeys(keep) {
		m.entry(&Location{Object: object, Entry: entry}, keep[entry], expectedEntry(entry))
	}
}

// reserve counts an entry of some bytes. It returns false if a bound is exceeded, and then
// nothing more may be read.
func (m *manifest) reserve(size int) bool {
	m.entries++
	m.reserved += size
	return !m.full()
}

// expectedEntry reports whether the name of an entry promises a certificate.
func expectedEntry(name string) bool {
	return slices.Contains(certNames, strings.ToLower(filepath.Ext(name)))
}

// entry reads one value of an object: PEM, or, if a certificate is expected, a store.
func (m *manifest) entry(in *Location, content []byte, expected bool) {
	var parts []Part
	content, odd := decoded(content)
	switch {
	case len(content) == 0: // cert-manager makes an empty entry before it has a certificate
	case isPEM(content) && (expected || ourMarker.Match(content)):
		parts = parsePEM(content, m.with)
		encodedOddly(parts, odd)
	case expected:
		parts = parseAs(binaryFormats, content, m.with)
	}
	if expected && len(content) > 0 {
		parts = requireCertificate(in.Entry, parts)
	}
	m.parse(in, parts)
}

// parse adds parts with their place. A part of a store keeps the name of its object
// within the store, behind the entry.
func (m *manifest) parse(in *Location, parts []Part) {
	for _, p := range parts {
		at := *in
		if p.In != nil {
			at.Loose, at.Locked = p.In.Loose, p.In.Locked
			if p.In.Object != "" {
				at.Entry = strings.TrimPrefix(at.Entry+"#"+p.In.Object, "#")
			}
		}
		p.In = &at
		m.add(p)
	}
}

// sortedKeys returns the keys in order, so that reports of one file are equal.
func sortedKeys(m map[string][]byte) (out []string) {
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
