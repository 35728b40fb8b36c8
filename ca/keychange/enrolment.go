package keychange

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"go.step.sm/crypto/jose"

	"github.com/artstore/artstore-pki/ca/internal/configedit"
	"github.com/artstore/artstore-pki/ca/internal/statedir"
	"github.com/artstore/artstore-pki/ca/policy"
	"github.com/artstore/artstore-pki/ca/record"
	"github.com/artstore/artstore-pki/ca/record/kinds"
	"github.com/artstore/artstore-pki/internal/durable"
	"github.com/artstore/artstore-pki/secret"
)

const (
	// LongestToken is how long a token can be used that was just made: an hour, and a minute
	// for clocks that differ.
	LongestToken = time.Hour + time.Minute
	// LongestKeep is the longest time for which an old key stays good.
	LongestKeep = 30 * 24 * time.Hour
)

// Errors that callers match.
var (
	// ErrProvisioner reports that it is not clear which key is meant.
	ErrProvisioner = errors.New("name the provisioner of type JWK whose key is to change")
	// ErrForm reports a pki.yaml that is valid and written in a form that is not edited here.
	ErrForm = configedit.ErrForm
	// ErrKeep reports a time that the old key cannot stay good for.
	ErrKeep = errors.New("the old key can stay good for 30 days at most")
	// ErrEdited reports that pki.yaml was changed by somebody else meanwhile.
	ErrEdited = errors.New("pki.yaml was changed meanwhile")
)

// EnrolmentOptions say which enrolment key to replace.
type EnrolmentOptions struct {
	Dir          string        // state directory
	Password     secret.String // of the keys; empty reads PasswordFile
	PasswordFile string        // default secrets/password
	// Provisioner is the name of one of type JWK. It may be empty if pki.yaml has only one.
	Provisioner string
	// Keep is how long tokens of the old key stay good: [LongestToken] lets those be used that
	// were handed out; 0 refuses them at once, for a key that was stolen. [LongestKeep] is the
	// most.
	Keep time.Duration
	// DryRun checks everything, and makes and changes nothing.
	DryRun bool

	beforeWrite func() error // for tests of what a crash leaves
}

// EnrolmentResult says which key was replaced.
type EnrolmentResult struct {
	Provisioner string
	// KeyID is the id of the new key, "" after a dry run. Replaced is that of the old one.
	KeyID, Replaced string
	// Until is the time from which on tokens of the old key are refused; zero means at once.
	Until time.Time
	// File has the private half, and Config is the file that was edited.
	File, Config string
}

// EnrolmentKey makes a new enrolment key for a provisioner. Tokens that are made on this
// machine are signed with it at once; a running authority accepts them when it has reloaded.
// The record has an event of kind [kinds.KeyChanged].
//
// The order of the writes is: the private key beside the old one, the event, pki.yaml, and
// the private key alone. A crash before pki.yaml is replaced leaves all as it was, and an
// event of a key that nobody uses. A crash after it leaves the new key in effect.
func EnrolmentKey(ctx context.Context, opt EnrolmentOptions) (out EnrolmentResult, err error) {
	if opt.Keep < 0 || opt.Keep > LongestKeep {
		return out, ErrKeep
	}
	f := statedir.Dir{Path: opt.Dir, Password: opt.Password, PasswordFile: opt.PasswordFile}
	release, err := f.LockSecrets()
	if err != nil {
		return out, err
	}
	defer release()
	r := rotation{opt: opt, files: f, at: time.Now()}
	if err := r.plan(); err != nil {
		return out, err
	}
	out = EnrolmentResult{Provisioner: r.current.Name, Replaced: r.current.Key.KeyID, File: f.JWEPath(r.current.Name), Config: r.path}
	if opt.Keep > 0 {
		out.Until = r.until()
	}
	if opt.DryRun {
		return out, nil
	}
	out.KeyID = r.fresh.KeyID
	return out, r.commit(ctx)
}

type rotation struct {
	opt     EnrolmentOptions
	files   statedir.Dir
	at      time.Time
	path    string // of pki.yaml, behind links
	text    []byte // of pki.yaml
	edited  []byte // the same, with the new key
	current policy.JWK
	fresh   *jose.JSONWebKey // private
}

func (r *rotation) until() time.Time { return r.at.Add(r.opt.Keep).UTC().Truncate(time.Second) }

// plan makes all that needs no write, and refuses what would fail later.
func (r *rotation) plan() (err error) {
	if r.path, err = filepath.EvalSymlinks(r.files.File(statedir.ConfigFile)); err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	if r.text, err = os.ReadFile(r.path); err != nil {
		return fmt.Errorf("reading configuration: %w", err)
	}
	var cfg policy.Config
	if err := cfg.Decode(r.text); err != nil {
		return fmt.Errorf("reading configuration %s: %w", r.path, err)
	}
	if err := r.choose(cfg); err != nil {
		return err
	}
	if err := r.checkPassword(); err != nil {
		return err
	}
	if r.fresh, err = jose.GenerateJWK("EC", jose.P256, jose.ES256, "sig", "", 0); err != nil {
		return errors.New("making the enrolment key: the library refused it")
	}
	return r.edit(cfg)
}

func (r *rotation) choose(cfg policy.Config) error {
	rules, err := cfg.Parse()
	if err != nil {
		return err
	}
	var names []string
	for _, j := range rules.JWKs {
		names = append(names, j.Name)
		if j.Name == r.opt.Provisioner || r.opt.Provisioner == "" && len(rules.JWKs) == 1 {
			r.current = j
		}
	}
	if r.current.Key == nil {
		return fmt.Errorf("%w: %s has %s", ErrProvisioner, statedir.ConfigFile, strings.Join(names, ", "))
	}
	return nil
}

// checkPassword makes sure that the new key is under the password of the others: it opens
// that of the log. Where the keys are plain, the new one is plain, too.
func (r *rotation) checkPassword() error {
	if _, err := r.files.OpenLogKey(); err != nil {
		return err
	}
	_, intermediates, err := r.files.ReadTrust()
	if err != nil {
		return err
	}
	r.files.Plain, err = r.files.KeptPlain(intermediates[0])
	return err
}

// edit makes the new text of pki.yaml, and decodes it: it must differ from the old one in
// the key and the previous keys of this provisioner, and in nothing else.
func (r *rotation) edit(before policy.Config) error {
	public := r.fresh.Public()
	key, err := public.MarshalJSON()
	if err != nil {
		return fmt.Errorf("encoding the enrolment key: %w", err)
	}
	i := slices.IndexFunc(before.Provisioners, func(p policy.Provisioner) bool { return p.Name == r.current.Name })
	var previous []configedit.Previous
	for _, p := range before.Provisioners[i].Previous {
		if r.at.Before(p.Until) && r.opt.Keep > 0 { // at once ends all old keys
			previous = append(previous, configedit.Previous{Key: p.Key, Until: p.Until})
		}
	}
	if r.opt.Keep > 0 {
		previous = append(previous, configedit.Previous{Key: before.Provisioners[i].Key, Until: r.until()})
	}
	if r.edited, err = configedit.SetKey(r.text, r.current.Name, string(key), previous); err != nil {
		return err
	}
	var after policy.Config
	if err := after.Decode(r.edited); err != nil {
		return fmt.Errorf("%w: %w", ErrForm, err)
	}
	got := after.Provisioners[i]
	if got.Key != string(key) || len(got.Previous) != len(previous) {
		return fmt.Errorf("%w: the key of provisioner %s was not found", ErrForm, r.current.Name)
	}
	after.Provisioners = slices.Clone(after.Provisioners)
	after.Provisioners[i].Key, after.Provisioners[i].Previous = before.Provisioners[i].Key, before.Provisioners[i].Previous
	if !reflect.DeepEqual(before, after) {
		return fmt.Errorf("%w: the edit would change more than the key of provisioner %s", ErrForm, r.current.Name)
	}
	return nil
}

func (r *rotation) commit(ctx context.Context) error {
	public := r.fresh.Public()
	for _, write := range []func() error{
		func() error { return r.files.AddJWK(r.current.Name, r.current.Key, r.fresh) },
		func() error { return r.tell(ctx) },
		r.replaceConfig,
		func() error { return r.files.KeepJWK(r.current.Name, &public) },
	} {
		if r.opt.beforeWrite != nil {
			if err := r.opt.beforeWrite(); err != nil {
				return err
			}
		}
		if err := write(); err != nil {
			return err
		}
	}
	return nil
}

// replaceConfig puts the new key into effect. The file keeps its mode.
func (r *rotation) replaceConfig() error {
	info, err := os.Stat(r.path)
	if err != nil {
		return fmt.Errorf("replacing the configuration: %w", err)
	}
	text, err := os.ReadFile(r.path)
	if err != nil {
		return fmt.Errorf("replacing the configuration: %w", err)
	}
	if !bytes.Equal(text, r.text) {
		return fmt.Errorf("replacing the configuration: %w", ErrEdited)
	}
	if err := durable.WriteFile(r.path, r.edited, info.Mode().Perm()); err != nil {
		return fmt.Errorf("replacing the configuration: %w", err)
	}
	return nil
}

func (r *rotation) tell(ctx context.Context) (err error) {
	cfg, err := policy.Load(r.opt.Dir)
	if err != nil {
		return err
	}
	v, err := statedir.LogVerifier(r.opt.Dir)
	if err != nil {
		return err
	}
	in, err := statedir.OpenRecord(ctx, r.opt.Dir, cfg.Database, v)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Store.Close()) }()
	end := "refused at once"
	if r.opt.Keep > 0 {
		end = "good until " + r.until().Format(time.RFC3339)
	}
	return in.Store.Tell(ctx, record.Event{
		At: r.at, Kind: kinds.KeyChanged, Caller: "operator",
		Detail: fmt.Sprintf("provisioner %s: key %s; tokens of key %s are %s", r.current.Name, r.fresh.KeyID, r.current.Key.KeyID, end),
	})
}
