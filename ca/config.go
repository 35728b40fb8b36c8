package ca

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/store"
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
	// Database is where the record is: a file, relative to the state directory, or
	// the postgres:// URL of a database that several authorities share, as
	// [store.Open] takes it. Empty means pki.db. It does not change while serve runs.
	Database string `yaml:"database,omitempty"`
	// DNSNames are the names and IP addresses clients reach the authority by.
	// They are the names of its own certificate and the audience of tokens; the first goes into new tokens.
	DNSNames []string `yaml:"dns_names"`
	// PublicPort is the port that clients reach the authority at, if that is another
	// one than that of Address; it goes into new tokens, where step looks for it. 0
	// means the port of Address.
	PublicPort uint16 `yaml:"public_port,omitempty"`
	// RootKey is the encrypted key of the first root, if it is not in secrets/.
	// It is read only to make a new intermediate, so it may be on a removable disk.
	RootKey string `yaml:"root_key,omitempty"`
	// CRLAddress is where serve answers GET /crl in cleartext, host:port; empty means nowhere.
	CRLAddress string `yaml:"crl_address,omitempty"`
	// CRLURL is where others find the lists, http://host/crl; it goes into new
	// certificates, with the issuer behind it. Empty means that they name no place.
	CRLURL string `yaml:"crl_url,omitempty"`
	// Lifetime holds for every profile that does not say otherwise, and for the authority's own certificate.
	Lifetime lifetimes `yaml:"lifetime,omitempty"`
	// AuditLog is a file of JSON lines, one for each thing issued, revoked or
	// refused; relative to the state directory. Empty means none.
	AuditLog string `yaml:"audit_log,omitempty"`
	// Limits on requests; the zero value has limits that honest clients never meet.
	Limits Limits `yaml:"limits,omitempty"`
	// Provisioners say who may hand out tokens.
	Provisioners []Provisioner `yaml:"provisioners"`
	// Auditors are the services that may read the record over HTTP, with their
	// client certificates; empty means nobody.
	Auditors []string `yaml:"auditors,omitempty"`
	// Enrollers are the services that may make enrolment tokens for others over HTTP,
	// with their client certificates; each has the services that it may enrol. Empty
	// means nobody.
	Enrollers map[string][]string `yaml:"enrollers,omitempty"`
	// Profiles say what a service may obtain; a service without one obtains nothing.
	Profiles map[string]Profile `yaml:"profiles"`
}

// Profile is what one service may obtain.
type Profile struct {
	// Names are the names its certificates carry: DNS names (underscores are fine,
	// internationalised names in their A-label form xn--...), IP addresses, URIs such
	// as spiffe://artstore/ingester. A token is for all of them unless it says otherwise.
	Names []string `yaml:"names,omitempty"`
	// Patterns stand for further names that a request may ask for: "*.workers.internal"
	// (one label before the suffix), "**.workers.internal" (one or more), networks such as
	// "10.20.0.0/16", and "spiffe://artstore/workers/*" or "/**". Empty means none.
	Patterns []string `yaml:"patterns,omitempty"`
	// Wildcards are names such as "*.apps.internal" that certificates may carry as
	// they are; such a certificate is good for every name one label below the suffix
	// (RFC 9525 §6.3). Empty means none.
	Wildcards []string `yaml:"wildcards,omitempty"`
	// Usages are "server", "client" or both; empty means both.
	Usages []string `yaml:"usages,omitempty"`
	// KeyTypes are EC-P256, EC-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096; empty means all but RSA-2048.
	KeyTypes []string `yaml:"key_types,omitempty"`
	// Lifetime replaces the default of the configuration, field by field.
	Lifetime lifetimes `yaml:"lifetime,omitempty"`
	// ACME lets whoever answers challenges for Names obtain them, without a token.
	// Off by default. It takes a provisioner of type ACME.
	ACME bool `yaml:"acme,omitempty"`
	// MaxLive is how many certificates that have not expired the service may have
	// when it enrols one more; renewals are not refused. 0 means 10000.
	MaxLive int `yaml:"max_live,omitempty"`
	// MaxLivePerLineage is how many certificates of one lineage may be valid at a
	// time: a first one, its renewals, and what they vouch for. 0 means 50, which a
	// loop or a thief meets, and no service that renews when it is time; 1000 at most.
	// Instances that renew copies of one certificate each for itself need two each.
	MaxLivePerLineage int `yaml:"max_live_per_lineage,omitempty"`
}

// lifetimes are lengths of time such as 24h or 90d, as [humantime.Parse] reads
// them; 10 s is the shortest.
type lifetimes struct {
	// Default is the life of a certificate whose request names no end; 0 means 24h.
	Default time.Duration `yaml:"default,omitempty"`
	// Min and Max are the shortest and the longest life that a request may ask for.
	// Anything else is refused, and what is allowed is issued as asked. 0 means 5m, or
	// Default if that is shorter, and Default.
	Min time.Duration `yaml:"min,omitempty"`
	Max time.Duration `yaml:"max,omitempty"`
	// Grace is how long after its end a certificate can still be renewed with its
	// key; absent means three lifetimes, at most 72h, which is also the most; 0s turns it off.
	Grace *time.Duration `yaml:"grace,omitempty"`
}

const (
	maxConfig       = 1 << 20
	defaultLifetime = 24 * time.Hour
	defaultMin      = 5 * time.Minute
	shortest        = 10 * time.Second // below it, clock skew and renewal race

	ownService = "ca" // reserved for the authority's own certificate
)

// LoadConfig reads and checks pki.yaml in a state directory. Unknown keys are
// errors that name line and key; an error tells everything that is wrong.
func LoadConfig(dir string) (Config, error) {
	path := statedir.Path(dir, statedir.ConfigFile)
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

// Decode sets c to a pki.yaml that is in no state directory yet, and checks it as
// [LoadConfig] does. After an error c is what it was.
func (c *Config) Decode(data []byte) error {
	parsed, err := parseConfig(data)
	if err == nil {
		*c = parsed
	}
	return err
}

func parseConfig(data []byte) (Config, error) {
	if len(data) > maxConfig {
		return Config{}, fmt.Errorf("longer than %d bytes", maxConfig)
	}
	var c Config
	if err := decodeYAML(data, &c); err != nil {
		return c, err
	}
	if err := emptyProfiles(data); err != nil {
		return c, err
	}
	_, err := c.parse()
	return c, err
}

// emptyProfiles refuses a provisioner whose key "profiles" has no value, as when
// all entries below it are commented out. Decoded, it cannot be told from an absent
// one, which means every service.
func emptyProfiles(data []byte) error {
	var c struct {
		Provisioners []struct {
			Profiles yaml.Node `yaml:"profiles"`
		} `yaml:"provisioners"`
	}
	if err := yaml.Unmarshal(data, &c); err != nil {
		return errors.New(plainYAML(err, data))
	}
	for i, p := range c.Provisioners {
		if p.Profiles.Kind == yaml.ScalarNode { // null: a list was decoded
			return fmt.Errorf("provisioners[%d].profiles: it has no value; list services, or leave the key out for all of them", i)
		}
	}
	return nil
}

// rules is the inner form of Config: it exists only if everything is valid, and
// nothing behind it checks again.
type rules struct {
	profiles  map[string]*profile
	own       *profile
	limits    Limits
	enrollers map[string][]string // services that may make tokens, and for which others
	provisioners
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
	for key, addr := range map[string]string{"address": c.Address, "metrics": c.Metrics, "crl_address": c.CRLAddress} {
		if addr != "" || key == "address" {
			checkAddress(&bad, key, addr)
		}
	}
	if err := checkFile(c.RootKey); err != nil {
		bad.add("root_key: %v", err)
	}
	if u, err := url.Parse(c.CRLURL); c.CRLURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		bad.add("crl_url: %.80q is not http://host/path with nothing behind the path", c.CRLURL)
	}
	if err := store.Check(c.Database); err != nil {
		bad.add("database: %v", err)
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
	r.limits = c.Limits.parse(&bad)
	for _, service := range c.Auditors {
		if r.profiles[service] == nil {
			bad.add("auditors: service %.80q has no profile", service)
		}
	}
	r.provisioners = parseProvisioners(c.Provisioners, r.profiles, &bad)
	r.enrollers = parseEnrollers(c.Enrollers, r.profiles, &bad)
	return r, bad.err()
}

// checkAddress wants host:port with a port that exists. A name of /etc/services
// is none here: what it means depends on the machine.
func checkAddress(bad *problems, key, addr string) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		bad.add("%s: %.80q is not host:port", key, addr)
		return
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		bad.add("%s: %.80q: port %.20q is not a number from 0 to 65535", key, addr, port)
	}
}

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
