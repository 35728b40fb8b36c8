// Package setup makes the state directory of an authority: keys, certificates,
// pki.yaml and an empty record. Everything else opens what is there.
//
//	made, err := setup.Init(ctx, setup.Options{Dir: dir, DNSNames: []string{"ca.example"}})
//	a, err := ca.Open(ctx, ca.Options{Dir: dir})
//
// Invariants:
//
//   - A directory is whole or it is no authority: pki.yaml comes last
//     (TestPublishKilled of package statedir).
//   - A directory that has anything in it (TestInitEncrypts), and a database with
//     the record of another authority (TestInitTakesNoRecord), are refused.
//   - A directory that waits for the certificate of its intermediate is no authority, and a
//     kill at any point leaves what can be run again (TestRequestKilled).
//   - What Init writes, ca.Open reads (TestInitWritesEveryOption): the options are
//     checked as pki.yaml before anything is written (TestInitRefuses).
package setup

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/cacert"
	"github.com/artstore/artstore-pki/ca/internal/crl"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/internal/certs"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/secret"
)

// newAuthority is a whole authority in memory, before any of it is written.
type newAuthority struct {
	// root and intermediate have their keys, unless Options.Existing has none of the root.
	// Both are zero if the intermediate is only requested.
	root, intermediate cacert.Issuer
	// request is the request for the intermediate in DER (RFC 2986), and requestKey its key,
	// with its URI if it is in a key store. Both are nil if there is an intermediate.
	request    []byte
	requestKey crypto.Signer
	requestURI string
	// public and jwe are the two halves of the enrolment key. jwe is encrypted
	// (RFC 7516 §7.1, compact form), or the private JWK itself if the keys are plain.
	public *jose.JSONWebKey
	jwe    string
	// yaml is pki.yaml.
	yaml []byte
	// shared is what [policy.Rules.SharedNames] says of yaml.
	shared []string
	// unpermitted says which names of profiles the CA certificates do not permit.
	unpermitted []string
	// head is the signed head of the empty log, nil until the record is made.
	head []byte
	// generated says that the password is a new one, which goes into secrets/password.
	generated bool
}

// Init makes an authority in opt.Dir: keys, certificates, pki.yaml and an empty
// record. It refuses a directory that is not empty ([durable.ErrNotEmpty]).
//
// Keys, certificates and pki.yaml are made in memory first, so bad options fail
// before anything is written. The files are written into a staging directory, which
// is moved into place at the end. A process that is killed before that leaves the
// staging directory, which does not stop the next Init; one that is killed after it
// may leave the root key in secrets/ instead of in opt.OfflineRoot, or in both. After
// an error nothing is left.
func Init(ctx context.Context, opt Options) (*Result, error) {
	w := &newAuthority{}
	if err := w.initialise(ctx, opt.withDefaults(), w.makeIssuers); err != nil {
		return nil, err
	}
	return w.result(opt.Dir), nil
}

// initialise makes everything and writes it. issuers makes the certificates, or the request.
func (w *newAuthority) initialise(ctx context.Context, opt Options, issuers func(Options) error) (err error) {
	f := statedir.Dir{Password: opt.Password, RootPassword: opt.RootPassword, Plain: opt.PlainKeys}
	if f.Password.IsZero() && !f.Plain {
		if f.Password, err = newPassword(); err != nil {
			return err
		}
		w.generated = true
	}
	if err := opt.check(); err != nil {
		return err
	}
	if err := issuers(opt); err != nil {
		return err
	}
	if err := w.generate(opt, f.Password); err != nil {
		return err
	}
	staging, err := statedir.Begin(opt.Dir)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, opt.withdraw(ctx, w.head), staging.Discard())
		}
	}()
	f.Path = staging.Dir
	if err := w.write(ctx, f, opt); err != nil {
		return err
	}
	if err := staging.Publish(); err != nil {
		return err
	}
	f.Path = opt.Dir
	// This is the last step because a file at OfflineRoot is never replaced: if a later
	// step failed, the file would stop the next Init.
	if opt.OfflineRoot != "" {
		return moveRootKey(f.KeyPath(certs.Fingerprint(w.root.Cert)), opt.OfflineRoot)
	}
	return nil
}

// result says what is in dir now.
func (w *newAuthority) result(dir string) *Result {
	res := &Result{Root: w.root.Cert, Provisioner: enrolment, SharedNames: w.shared, Unpermitted: w.unpermitted}
	if res.Root != nil {
		res.RootFingerprint = certs.Fingerprint(res.Root)
	}
	if w.generated {
		res.PasswordFile = statedir.Path(dir, statedir.PasswordFile)
	}
	return res
}

// Unfinished reports whether the directory has parts of an authority and no pki.yaml.
// An Init or a restore that was killed may have left it; no authority has run there.
func Unfinished(dir string) bool { return statedir.Unfinished(dir) }

// generate makes what needs no disk beside the certificates, and checks the options by
// reading pki.yaml as Open will.
func (w *newAuthority) generate(opt Options, password secret.String) (err error) {
	if err := w.makeEnrolmentKey(opt.PlainKeys, password); err != nil {
		return err
	}
	if w.yaml, err = renderConfig(opt, w.root.KeyURI, w.public); err != nil {
		return err
	}
	// Open must be able to read what Init writes, so bad options are found here.
	var cfg policy.Config
	if err := cfg.Decode(w.yaml); err != nil {
		return fmt.Errorf("checking the options: %w", err)
	}
	rules, err := cfg.Parse()
	if err != nil {
		return err
	}
	w.shared = rules.SharedNames()
	if w.request != nil { // who signs decides which names are permitted
		return nil
	}
	return w.tryNames(rules)
}

// makeIssuers makes root and intermediate, or takes those that exist.
func (w *newAuthority) makeIssuers(opt Options) error {
	have, err := opt.Existing.open(opt)
	if err != nil {
		return err
	}
	if w.root = have.root; w.root.Cert == nil {
		t, err := opt.Root.template(opt.Name)
		if err == nil {
			t.PathLength = opt.RootPathLength
			w.root, err = cacert.New(t, cacert.Issuer{})
		}
		if err != nil {
			return fmt.Errorf("making the root: %w", err)
		}
	}
	if w.intermediate = have.intermediate; w.intermediate.Cert == nil {
		t, err := opt.Intermediate.template(opt.Name)
		if err == nil {
			w.intermediate, err = cacert.New(t, w.root)
		}
		if err != nil {
			return fmt.Errorf("making the intermediate: %w", err)
		}
	}
	return nil
}

// tryNames compares the names of the configuration with the name constraints of the CA
// certificates. A name of the authority itself must be permitted, because no client could
// connect otherwise. A name of a profile that is not permitted is only told, because the
// profiles that Init writes are examples.
func (w *newAuthority) tryNames(rules *policy.Rules) error {
	chain := []*x509.Certificate{w.root.Cert, w.intermediate.Cert}
	outside, err := cacert.Outside(chain, rules.Own.Names)
	if err != nil {
		return err
	}
	if len(outside) > 0 {
		return fmt.Errorf("the CA certificates do not permit the authority's own names %s", strings.Join(outside, ", "))
	}
	for _, service := range slices.Sorted(maps.Keys(rules.Services)) {
		outside, err := cacert.Outside(chain, rules.Services[service].Names)
		if err != nil {
			return err
		}
		if len(outside) > 0 {
			w.unpermitted = append(w.unpermitted, fmt.Sprintf("profiles.%s: the CA certificates do not permit %s", service, strings.Join(outside, ", ")))
		}
	}
	return nil
}

// makeEnrolmentKey makes a P-256 key for ES256 (RFC 7518 §3.4). Encrypting it derives
// a key from the password, which is slow on purpose. Errors of the library are not
// passed on, because nothing says that they do not quote the key.
func (w *newAuthority) makeEnrolmentKey(plain bool, password secret.String) error {
	if plain {
		key, err := jose.GenerateJWK("EC", jose.P256, jose.ES256, "sig", "", 0)
		if err != nil {
			return errors.New("making the enrolment key: the library refused it")
		}
		public := key.Public()
		text, err := key.MarshalJSON()
		w.public, w.jwe = &public, string(text)
		return err
	}
	public, jwe, err := jose.GenerateDefaultKeyPair([]byte(password.Expose()))
	if err != nil {
		return errors.New("making the enrolment key: the library refused it")
	}
	w.public = public
	if w.jwe, err = jwe.CompactSerialize(); err != nil {
		return errors.New("encrypting the enrolment key: the library refused it")
	}
	return nil
}

// write writes all files of the authority below f.Path, and makes the record.
// Certificates come before the lists that name them, and the marker after the head
// that it holds. pki.yaml is the last file: a directory without it is no authority.
func (w *newAuthority) write(ctx context.Context, f statedir.Dir, opt Options) error {
	for _, dir := range []string{"secrets", "certs"} {
		if err := durable.MkdirAll(f.File(dir)); err != nil {
			return fmt.Errorf("making a directory: %w", err)
		}
	}
	if w.generated {
		if err := durable.WriteNew(f.File(statedir.PasswordFile), []byte(f.Password.Expose()+"\n"), durable.Private); err != nil {
			return fmt.Errorf("writing the password: %w", err)
		}
	}
	if err := durable.WriteNew(f.JWEPath(enrolment), []byte(w.jwe+"\n"), durable.Private); err != nil {
		return fmt.Errorf("writing the enrolment key: %w", err)
	}
	if err := w.writeIssuers(f); err != nil {
		return err
	}
	key, err := f.MakeLogKey()
	if err != nil {
		return err
	}
	if w.head, err = makeRecord(ctx, opt.recordIn(f.Path), key); err != nil {
		return err
	}
	if err := statedir.WriteMarker(f.Path, w.head); err != nil {
		return err
	}
	config := f.File(statedir.ConfigFile)
	if w.request != nil {
		config = f.RequestedConfig()
	}
	if err := durable.WriteNew(config, w.yaml, durable.Public); err != nil {
		return fmt.Errorf("writing the configuration: %w", err)
	}
	return nil
}

// writeIssuers writes the certificates, their keys and the list of the root, or the request for
// the intermediate. Without the key of the root there is no list of the root.
func (w *newAuthority) writeIssuers(f statedir.Dir) error {
	if w.request != nil {
		return f.WriteRequest(w.request, w.requestKey, w.requestURI)
	}
	// Where a root key is that is not here stands in pki.yaml, because operators move it.
	if w.root.KeyURI != "" || w.root.Key == nil {
		if err := f.WriteCert(w.root.Cert); err != nil {
			return err
		}
	} else if err := f.WriteIssuer(w.root); err != nil {
		return err
	}
	if w.root.Key != nil {
		if err := crl.WriteRoot(f.Path, w.root, nil); err != nil {
			return err
		}
	}
	if err := f.WriteIssuer(w.intermediate); err != nil {
		return err
	}
	roots, intermediates := []*x509.Certificate{w.root.Cert}, []*x509.Certificate{w.intermediate.Cert}
	return errors.Join(f.WriteTrust(roots, intermediates), f.WriteCopies(roots, intermediates))
}

// moveRootKey writes the key to its place outside before it removes the one inside, so
// a crash in between leaves two copies and not none. The two places may be on
// different file systems, so a rename is not enough.
func moveRootKey(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("moving the root key: %w", err)
	}
	if err := durable.WriteNew(to, data, durable.Private); err != nil {
		return fmt.Errorf("moving the root key: %w", err)
	}
	if err := os.Remove(from); err != nil {
		return errors.Join(fmt.Errorf("moving the root key: %w", err), os.Remove(to))
	}
	return nil
}

// newPassword returns 256 random bits in base64url, 43 characters.
func newPassword() (secret.String, error) {
	b := make([]byte, 32)
	if _, err := rand.Read(b); err != nil {
		return secret.String{}, fmt.Errorf("drawing a password: %w", err)
	}
	return secret.New(base64.RawURLEncoding.EncodeToString(b)), nil
}
