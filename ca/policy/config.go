package policy

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

	"github.com/artstore/artstore-pki/ca/internal/names"
	"github.com/artstore/artstore-pki/ca/internal/sqldb"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/internal/lifetime"
	"github.com/artstore/artstore-pki/internal/strictyaml"
)

// Config is pki.yaml. It is the outer form: [Load] and [Open] refuse one
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
	// RootKey is where the key of the first root is, if it is not in secrets/: the path of
	// a file, which may be on a removable disk because it is read only to make a new
	// intermediate, or the URI of a key in a key store, as package keystore has them.
	RootKey string `yaml:"root_key,omitempty"`
	// IntermediateKey is the URI of a key store in which the keys of new intermediates are
	// made. It names a store and no key. Empty means secrets/.
	IntermediateKey string `yaml:"intermediate_key,omitempty"`
	// CRLAddress is where serve answers GET /crl in cleartext, host:port; empty means nowhere.
	CRLAddress string `yaml:"crl_address,omitempty"`
	// CRLURL is where others find the lists, http://host/crl; it goes into new
	// certificates, with the issuer behind it. Empty means that they name no place.
	CRLURL string `yaml:"crl_url,omitempty"`
	// Lifetime holds for every profile that does not say otherwise, and for the authority's own certificate.
	Lifetime Lifetimes `yaml:"lifetime,omitempty"`
	// KeyTypes are the kinds of keys that profiles allow which list none: as in
	// [Profile.KeyTypes].
	KeyTypes []string `yaml:"key_types,omitempty"`
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
	// Operators are the services that may change the trust bundle and order renewals over
	// HTTP, with their client certificate. Nobody by default. Whoever holds the key of one
	// can do what the operator of the authority can.
	Operators []string `yaml:"operators,omitempty"`
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
	// KeyTypes are EC-P256, EC-P384, Ed25519, RSA-2048, RSA-3072, RSA-4096. Empty means those of
	// the configuration, and if it has none, all but RSA-2048.
	KeyTypes []string `yaml:"key_types,omitempty"`
	// Lifetime replaces the default of the configuration, field by field.
	Lifetime Lifetimes `yaml:"lifetime,omitempty"`
	// ACME lets a client that answers challenges for Names obtain them, without a token.
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

// Lifetimes are lengths of time such as 24h or 90d, as [humantime.Parse] reads
// them; 10 s is the shortest.
type Lifetimes struct {
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

// Bounds and defaults of values in a configuration.
const (
	maxConfig       = 1 << 20
	DefaultLifetime = 24 * time.Hour
	defaultMin      = 5 * time.Minute
	MinLifetime     = 10 * time.Second // below it, clock skew and renewal race

	AuthorityService = "ca" // reserved for the authority's own certificate
)

// Load reads and checks pki.yaml in a state directory. Unknown keys are
// errors that name line and key. One error lists all faults of the file. A directory
// whose intermediate is not signed yet is an error of its own, [setup.ErrWaiting].
func Load(dir string) (Config, error) {
	path := statedir.Path(dir, statedir.ConfigFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && statedir.Waiting(dir) {
		return Config{}, fmt.Errorf("%s: %w, which is requested in %s", dir, statedir.ErrWaiting, statedir.Dir{Path: dir}.RequestPath())
	}
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
// [Load] does. An error leaves c unchanged.
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
	if err := strictyaml.Decode(data, &c); err != nil {
		return c, err
	}
	if err := emptyProfiles(data); err != nil {
		return c, err
	}
	_, err := c.Parse()
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
		return errors.New(strictyaml.Plain(err, data))
	}
	for i, p := range c.Provisioners {
		if p.Profiles.Kind == yaml.ScalarNode { // null: a list was decoded
			return fmt.Errorf("provisioners[%d].profiles: it has no value; list services, or leave the key out for all of them", i)
		}
	}
	return nil
}

// Rules are the valid form of Config. They are immutable, but for the roots of X5C.
type Rules struct {
	// Services are those with a profile, by name.
	Services map[string]*Service
	// Own is what the authority issues to itself.
	Own *Service
	// Limits have their defaults filled in.
	Limits Limits
	// Enrollers are the services that may make tokens, with the services they may enrol.
	Enrollers map[string][]string
	provisioners
}

// problems collects faults, so that one error lists all of them.
type problems []string

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

func (p problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return errors.New(strings.Join(p, "; "))
}

// Parse returns the valid form of the configuration, or one error that lists all faults.
func (c Config) Parse() (*Rules, error) {
	var bad problems
	r := &Rules{Services: make(map[string]*Service, len(c.Profiles))}
	if strings.TrimSpace(c.Name) == "" || len(c.Name) > 48 { // ub-common-name is 64 (RFC 5280 appendix A.1), and a suffix follows
		bad.add("name: want 1 to 48 characters")
	}
	for key, addr := range map[string]string{"address": c.Address, "metrics": c.Metrics, "crl_address": c.CRLAddress} {
		if addr != "" || key == "address" {
			checkAddress(&bad, key, addr)
		}
	}
	if err := checkKey(c.RootKey); err != nil {
		bad.add("root_key: %v", err)
	}
	if err := checkStore(c.IntermediateKey); err != nil {
		bad.add("intermediate_key: %v", err)
	}
	if u, err := url.Parse(c.CRLURL); c.CRLURL != "" && (err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "") {
		bad.add("crl_url: %.80q is not http://host/path with nothing behind the path", c.CRLURL)
	}
	if err := sqldb.Check(c.Database); err != nil {
		bad.add("database: %v", err)
	}
	checkKeyTypes(&bad, "key_types", c.KeyTypes)
	life := c.Lifetime.WithDefaults(Lifetimes{})
	life.validate(&bad, "lifetime")
	r.Own = Profile{Names: c.DNSNames, Usages: []string{usageServer}}.parse(AuthorityService, life, &bad)
	for _, service := range slices.Sorted(maps.Keys(c.Profiles)) {
		if service == AuthorityService {
			bad.add("profiles.%s: the name is reserved for the authority itself", service)
			continue
		}
		p := c.Profiles[service]
		if len(p.KeyTypes) == 0 {
			p.KeyTypes = c.KeyTypes
		}
		r.Services[service] = p.parse(service, life, &bad)
	}
	r.Limits = c.Limits.parse(&bad)
	checkServices(&bad, "auditors", c.Auditors, r.Services)
	checkServices(&bad, "operators", c.Operators, r.Services)
	r.provisioners = parseProvisioners(c.Provisioners, r.Services, &bad)
	r.Enrollers = parseEnrollers(c.Enrollers, r.Services, &bad)
	return r, bad.err()
}

// checkServices wants names of services with a profile: a misspelt one would be a service
// that cannot do what the operator meant, and nobody would see why.
func checkServices(bad *problems, key string, list []string, known map[string]*Service) {
	for _, service := range list {
		if known[service] == nil {
			bad.add("%s: service %.80q has no profile", key, service)
		}
	}
}

// checkAddress wants host:port with a port that exists. A name of /etc/services
// is refused, because its number depends on the machine.
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

// WithDefaults fills unset fields from the outer lifetimes, then from the defaults.
func (l Lifetimes) WithDefaults(outer Lifetimes) Lifetimes {
	if l.Default == 0 {
		l.Default = outer.Default
	}
	if l.Default == 0 {
		l.Default = DefaultLifetime
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

func (l Lifetimes) validate(bad *problems, at string) {
	if l.Min < MinLifetime {
		bad.add("%s.min: %s is shorter than %s", at, l.Min, MinLifetime)
	}
	if l.Default < l.Min || l.Default > l.Max {
		bad.add("%s.default: %s is not between min %s and max %s", at, l.Default, l.Min, l.Max)
	}
	if g := l.Grace; g != nil && (*g < 0 || *g > lifetime.MaxGrace) {
		bad.add("%s.grace: %s is not between 0s and %s", at, *g, lifetime.MaxGrace)
	}
}

// CheckReload refuses next if it changes a setting that is used at start only. A reload would
// have to keep the old socket of a listener until the new one is open, and certificates
// would name a crl_url where nothing answers yet.
func (c Config) CheckReload(next Config) error {
	var bad problems
	for _, one := range []struct{ key, before, after string }{
		{"address", c.Address, next.Address}, {"metrics", c.Metrics, next.Metrics},
		{"crl_address", c.CRLAddress, next.CRLAddress}, {"database", c.Database, next.Database},
	} {
		if one.before != one.after {
			bad.add("%s: it does not change while the authority runs; restart it", one.key)
		}
	}
	return bad.err()
}

// PublicHost returns the host, and the port if it is not 443, for the audience of tokens:
// step and smallstep's libraries take the URL of the authority from there. A port that
// is chosen when the authority starts is left out, because it is not known here.
func (c Config) PublicHost() string {
	host, port := names.URLHost(c.DNSNames), uint64(c.PublicPort)
	if _, listened, err := net.SplitHostPort(c.Address); err == nil && port == 0 {
		port, _ = strconv.ParseUint(listened, 10, 16) // it is a number, or the configuration would not be valid
	}
	if port == 0 || port == httpsPort {
		return host
	}
	return host + ":" + strconv.FormatUint(port, 10)
}

const httpsPort = 443 // which a URL without a port means (RFC 9110 §4.2.2)
