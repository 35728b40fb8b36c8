package ca

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/jose"
	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/internal/lifetime"
)

// Config is pki.yaml. It is the outer form: [LoadConfig] and [Open] refuse one
// that is not valid, and say everything that is wrong with it at once.
type Config struct {
	// Name is part of the subjects of the authority's certificates.
	Name string `yaml:"name"`
	// Address is where serve listens, host:port.
	Address string `yaml:"address"`
	// Metrics is where serve answers /metrics and /readyz in cleartext; empty means nowhere.
	Metrics string `yaml:"metrics,omitempty"`
	// DNSNames are the names and IP addresses clients reach the authority by.
	// They are the names of its own certificate and the audience of tokens; the first goes into new tokens.
	DNSNames []string `yaml:"dns_names"`
	// RootKey is the encrypted key of the first root, if it is not in secrets/.
	// It is read only to make a new intermediate, so it may be on a removable disk.
	RootKey string `yaml:"root_key,omitempty"`
	// Lifetime holds for every profile that does not say otherwise, and for the authority's own certificate.
	Lifetime lifetimes `yaml:"lifetime,omitempty"`
	// Provisioners say who may hand out tokens.
	Provisioners []Provisioner `yaml:"provisioners"`
	// Profiles say what a service may obtain; a service without one obtains nothing.
	Profiles map[string]Profile `yaml:"profiles"`
}

// Profile is what one service may obtain.
type Profile struct {
	// Names are all names its certificates may carry: DNS names (underscores are
	// fine, wildcards are not), IP addresses, URIs such as spiffe://artstore/ingester.
	Names []string `yaml:"names"`
	// Usages are "server", "client" or both; empty means both.
	Usages []string `yaml:"usages,omitempty"`
	// KeyTypes are EC-P256, EC-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096; empty means all but RSA-2048.
	KeyTypes []string `yaml:"key_types,omitempty"`
	// Lifetime replaces the default of the configuration, field by field.
	Lifetime lifetimes `yaml:"lifetime,omitempty"`
}

// lifetimes are durations such as "24h"; 10 s is the shortest.
type lifetimes struct {
	Default time.Duration `yaml:"default,omitempty"` // 0 means 24h
	Min     time.Duration `yaml:"min,omitempty"`     // shortest a request may ask for; 0 means 5m, or Default if that is shorter
	Max     time.Duration `yaml:"max,omitempty"`     // a request for more is refused; 0 means Default
	// Grace is how long after its end a certificate can still be renewed with its
	// key; absent means three lifetimes, at most 72h, which is also the most; 0s turns it off.
	Grace *time.Duration `yaml:"grace,omitempty"`
}

// Provisioner is a key that signs enrolment tokens.
type Provisioner struct {
	Type string `yaml:"type"` // JWK
	Name string `yaml:"name"` // the issuer claim of its tokens
	Key  string `yaml:"key"`  // public JWK as JSON
	// PublishEncryptedKey serves the password-encrypted private key to everyone, as
	// "step ca token" without --key expects it. Off by default: it can be
	// attacked offline.
	PublishEncryptedKey bool `yaml:"publish_encrypted_key,omitempty"`
}

const (
	configFile      = "pki.yaml"
	maxConfig       = 1 << 20
	defaultLifetime = 24 * time.Hour
	defaultMin      = 5 * time.Minute
	shortest        = 10 * time.Second // below it, clock skew and renewal race

	typeJWK    = "JWK"
	ownService = "ca" // reserved for the authority's own certificate
)

// LoadConfig reads and checks pki.yaml in a state directory. Unknown keys are
// errors that name line and key; an error tells everything that is wrong.
func LoadConfig(dir string) (Config, error) {
	path := filepath.Join(dir, configFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	c, err := parseConfig(data)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration %s: %w", path, err)
	}
	return c, nil
}

// parseConfig decodes strictly: a misspelt key that is ignored would be a rule
// that does not hold.
func parseConfig(data []byte) (Config, error) {
	if len(data) > maxConfig {
		return Config{}, fmt.Errorf("longer than %d bytes", maxConfig)
	}
	var c Config
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&c); err != nil {
		if errors.Is(err, io.EOF) {
			return c, errors.New("the file is empty")
		}
		return c, errors.New(plainYAML(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return c, errors.New("more than one YAML document")
	}
	_, err := c.parse()
	return c, err
}

var unknownKey = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plainYAML turns the library's report (several lines, Go type names) into one line for the author of the file.
func plainYAML(err error) string {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n")
	text = unknownKey.ReplaceAllString(text, `unknown key "$1"`)
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "; ")
}

// rules is the inner form of Config: it exists only if everything is valid, and
// nothing behind it checks again.
type rules struct {
	profiles     map[string]*profile
	own          *profile
	provisioners []jwk
}

type jwk struct {
	name    string
	key     *jose.JSONWebKey // public, with key id
	publish bool
}

// problems collects what is wrong, so that one run shows all of it.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return errors.New(strings.Join(p, "; "))
}

func (c Config) parse() (*rules, error) {
	var bad problems
	r := &rules{profiles: make(map[string]*profile, len(c.Profiles))}
	if strings.TrimSpace(c.Name) == "" || len(c.Name) > 48 { // RFC 5280 ub-common-name is 64, and a suffix follows
		bad.add("name: want 1 to 48 characters")
	}
	for key, addr := range map[string]string{"address": c.Address, "metrics": c.Metrics} {
		if _, _, err := net.SplitHostPort(addr); err != nil && (addr != "" || key == "address") {
			bad.add("%s: %q is not host:port", key, addr)
		}
	}
	life := c.Lifetime.or(lifetimes{})
	life.check(&bad, "lifetime")
	r.own = Profile{Names: c.DNSNames, Usages: []string{usageServer}}.parse(ownService, life, &bad)
	for _, service := range slices.Sorted(maps.Keys(c.Profiles)) {
		if service == ownService {
			bad.add("profiles.%s: the name is reserved for the authority itself", service)
			continue
		}
		r.profiles[service] = c.Profiles[service].parse(service, life, &bad)
	}
	r.provisioners = parseProvisioners(c.Provisioners, &bad)
	return r, bad.err()
}

func parseProvisioners(list []Provisioner, bad *problems) []jwk {
	if len(list) == 0 {
		bad.add("provisioners: want at least one")
	}
	var out []jwk
	for i, p := range list {
		at := fmt.Sprintf("provisioners[%d]", i)
		if p.Type != typeJWK {
			bad.add("%s.type: %q is not supported, only %s is", at, p.Type, typeJWK)
			continue
		}
		if !provisionerName.MatchString(p.Name) || slices.ContainsFunc(out, func(o jwk) bool { return o.name == p.Name }) {
			bad.add("%s.name: %q is empty, taken or has characters other than letters, digits and . _ @ -", at, p.Name)
		}
		key := new(jose.JSONWebKey)
		err := key.UnmarshalJSON([]byte(p.Key))
		switch {
		case err != nil || !key.Valid():
			bad.add("%s.key: not a JWK in JSON", at)
		case !key.IsPublic():
			bad.add("%s.key: this is a private key; it must not be here", at)
		case key.KeyID == "":
			bad.add("%s.key: has no kid", at)
		default:
			out = append(out, jwk{p.Name, key, p.PublishEncryptedKey})
		}
	}
	return out
}

// The name is part of a file name.
var provisionerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

// or fills unset fields from the outer lifetimes, then from the defaults.
func (l lifetimes) or(outer lifetimes) lifetimes {
	if l.Default == 0 {
		l.Default = outer.Default
	}
	if l.Default == 0 {
		l.Default = defaultLifetime
	}
	if l.Min == 0 {
		l.Min = outer.Min
	}
	if l.Min == 0 {
		l.Min = min(defaultMin, l.Default)
	}
	if l.Max == 0 {
		l.Max = max(outer.Max, l.Default)
	}
	if l.Grace == nil {
		l.Grace = outer.Grace
	}
	return l
}

func (l lifetimes) check(bad *problems, at string) {
	if l.Min < shortest {
		bad.add("%s.min: %s is shorter than %s", at, l.Min, shortest)
	}
	if l.Default < l.Min || l.Default > l.Max {
		bad.add("%s.default: %s is not between min %s and max %s", at, l.Default, l.Min, l.Max)
	}
	if g := l.Grace; g != nil && (*g < 0 || *g > lifetime.MaxGrace) {
		bad.add("%s.grace: %s is not between 0s and %s", at, *g, lifetime.MaxGrace)
	}
}
