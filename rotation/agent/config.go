package agent

import (
	"io/fs"
	"time"

	"github.com/artstore/artstore-pki/rotation/enroll"
	"github.com/artstore/artstore-pki/rotation/workload"
)

// Config is what a configuration file says. [ReadConfig] makes it, and it is valid then.
type Config struct {
	Socket     string // path of the control socket, "" for none
	StatusFile string // gets the status as JSON after each change, "" for none
	Metrics    string // HOST:PORT of loopback, "" for none
	Identities []Identity
	Workload   *WorkloadAPI // nil for none
}

// WorkloadAPI says how identities are served to programs that know SPIFFE.
type WorkloadAPI struct {
	Socket workload.Socket
	// Rules say who gets which identities, by their names. Who is in none of them gets nothing.
	Rules []workload.Rule
}

// Identity is one certificate that the agent keeps for a program.
type Identity struct {
	Name    string   // unique; for status, logs and metrics
	Service string   // the certificate must have this name, "" for any
	Names   []string // and these
	Dir     string   // absolute
	// TokenFile has an enrolment token, when there is one. "" means that a certificate is
	// stored already.
	TokenFile                           string
	URL, RootFingerprint, AuthorityName string // as in enroll.Config
	KeyType                             enroll.KeyType
	Access                              Access
	Formats                             []Format
	Hook                                *Hook // nil for none
	Serves                              []Address
}

// Access is who may read the files. What is not set stays as the operator has set it.
type Access struct {
	Owner, Group string      // names or numbers; "" is not set
	Mode         fs.FileMode // of secret files; 0 is not set
}

// Format is one more file of a generation.
type Format struct {
	Kind         string // combined-pem, pkcs1, sec1, pkcs12, pkcs12-trust, jks or jks-trust
	File         string // a name without directories
	PasswordFile string // of kinds that are encrypted
}

// Hook puts new files into effect. One of Command, Reload, Unit, PIDFile and URL is set.
type Hook struct {
	Command []string      // program and arguments, no shell
	Reload  string        // a unit for systemctl reload-or-restart
	Unit    string        // a unit whose main process gets Signal
	PIDFile string        // has the number of a process that gets Signal
	Signal  string        // such as HUP
	URL     string        // gets a POST; https, or http of loopback
	Timeout time.Duration // of one run
	Settle  time.Duration // after a run, until each of Serves must have the new certificate
}

// Address is where a program serves the certificate.
type Address struct {
	Address    string // HOST:PORT or a URL, as for the command audit
	ServerName string // "" means the first name of the certificate
}

// Defaults and bounds of a hook.
const (
	DefaultHookTimeout = 30 * time.Second
	DefaultSettle      = 5 * time.Second

	maxHookTimeout = 10 * time.Minute
	maxSettle      = 5 * time.Minute
)
