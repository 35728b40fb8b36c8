package main

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// uploadSession is what every command that uploads runs on: the configuration of
// its clients, its identity, its trust and its traces. [openSession] opens one.
type uploadSession struct {
	cfg ingestclient.Config // of the clients to come; the caller may change it
	id  *rotation.Identity  // nil if the settings say that there is no TLS

	tracer  *tracer // nil: no spans
	clients []*ingestclient.Client
	untrust func() error // nil: nothing was opened
}

// newClient makes a client, which endSession closes.
func (a *uploadSession) newClient(cfg ingestclient.Config) (*ingestclient.Client, error) {
	client, err := ingestclient.New(cfg, a.id)
	if err == nil {
		a.clients = append(a.clients, client)
	}
	return client, err
}

// traceUpload begins the span of one file, around all attempts; end closes it.
func (a *uploadSession) traceUpload(ctx context.Context, name string) (_ context.Context, end func(error)) {
	return a.tracer.upload(ctx, name)
}

// endSession closes the newest client first, and then what they run on.
func (a *uploadSession) endSession(ctx context.Context) (err error) {
	for _, client := range slices.Backward(a.clients) {
		err = errors.Join(err, client.Close())
	}
	if a.id != nil {
		err = errors.Join(err, a.id.Close())
	}
	if a.untrust != nil {
		err = errors.Join(err, a.untrust())
	}
	a.tracer.flush(ctx)
	return err
}

// sessionSetup says what a session is made from.
type sessionSetup struct {
	Settings *settings.Settings
	Logger   *slog.Logger
	// Untraced leaves out the spans, also where the environment names a collector:
	// a check of the peers is not a part of anybody's uploads.
	Untraced bool
}

// openSession opens what uploads run on. It gets the identity, which can mean to
// wait for a certificate. The caller closes the session, also without a client.
func openSession(u *ui.UI, c *cli.Context, from sessionSetup) (_ *uploadSession, err error) {
	s := &uploadSession{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.endSession(c.Context))
		}
	}()
	if s.cfg, err = ingestConfig(from.Settings, from.Logger); err != nil {
		return nil, err
	}
	if !from.Untraced {
		if s.tracer, err = openTracer(c.Context, u); err != nil {
			return nil, err
		}
		s.tracer.trace(&s.cfg)
	}
	if s.untrust, err = openTrust(c.Context, from.Settings, &s.cfg); err != nil {
		return nil, err
	}
	if s.id, err = settingsIdentity(u, c, from.Settings, from.Logger); err != nil {
		return nil, err
	}
	return s, nil
}

// openTrust opens the trust bundles that the settings name for one side, and puts
// them into cfg. The function it returns closes them, after the clients.
func openTrust(ctx context.Context, s *settings.Settings, cfg *ingestclient.Config) (func() error, error) {
	var open []*rotation.Trust
	closeAll := func() (err error) {
		for _, t := range open {
			err = errors.Join(err, t.Close())
		}
		return err
	}
	for _, side := range []struct {
		path string
		into **rotation.Trust
	}{{s.Token.CA, &cfg.TokenTrust}, {s.Storage.CA, &cfg.StorageTrust}} {
		if side.path == "" {
			continue
		}
		t, err := rotation.OpenTrust(ctx, rotation.Config{Source: files.Source(files.Set{CA: side.path}), Logger: cfg.Logger})
		if err != nil {
			return nil, errors.Join(err, closeAll())
		}
		open = append(open, t)
		*side.into = t
	}
	return closeAll, nil
}

// settingsIdentity opens the identity that the settings describe; nil if they
// say that there is no TLS.
func settingsIdentity(u *ui.UI, c *cli.Context, s *settings.Settings, logger *slog.Logger) (*rotation.Identity, error) {
	if !s.TLS.Enabled {
		return nil, nil
	}
	return openIdentityFrom(c.Context, u, identityOptions{
		cert: s.TLS.Cert, key: s.TLS.Key, caCert: s.TLS.CA,
		url: s.Authority.URL, tokenFile: s.Authority.TokenFile, state: s.Authority.State, fingerprint: s.Authority.RootFingerprint,
		authority: s.Authority.AuthorityName, trustRefresh: s.Authority.TrustRefresh,
	}, logger)
}

// forElement is cfg for one Storage Element of those it has.
func forElement(cfg ingestclient.Config, url string) ingestclient.Config {
	cfg.Elements = []ingestclient.Element{{URL: url}}
	return cfg
}
