package uploads

import (
	"context"
	"errors"
	"log/slog"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/identity"
	"github.com/artstore/artstore-pki/cmd/artstore-pki/internal/ui"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/settings"
	"github.com/artstore/artstore-pki/rotation"
	"github.com/artstore/artstore-pki/rotation/files"
)

// Session has what the clients of a command share: configuration, identity, trust and traces. [Open]
// opens one, and the caller closes it.
type Session struct {
	// Config is that of the settings. The caller may change it before it makes a client.
	Config ingestclient.Config
	// Identity is nil if the settings say that there is no TLS.
	Identity *rotation.Identity

	tracer  *tracer // nil: no spans
	clients []*ingestclient.Client
	untrust func() error // closes the trust bundles; nil if none was opened
}

// NewClient makes a client with the identity of the session. [Session.Close] closes it.
func (a *Session) NewClient(cfg ingestclient.Config) (*ingestclient.Client, error) {
	client, err := ingestclient.New(cfg, a.Identity)
	if err == nil {
		a.clients = append(a.clients, client)
	}
	return client, err
}

// Trace begins the span of one file, around all attempts to upload it. The caller calls end with the
// outcome. Without a collector both do nothing.
func (a *Session) Trace(ctx context.Context, name string) (_ context.Context, end func(error)) {
	return a.tracer.upload(ctx, name)
}

// Close closes the clients, the newest first, then the identity and the trust, which they use, and at
// last sends the remaining spans. It waits for the collector for 5 s at most.
func (a *Session) Close(ctx context.Context) (err error) {
	for _, client := range slices.Backward(a.clients) {
		err = errors.Join(err, client.Close())
	}
	if a.Identity != nil {
		err = errors.Join(err, a.Identity.Close())
	}
	if a.untrust != nil {
		err = errors.Join(err, a.untrust())
	}
	a.tracer.flush(ctx)
	return err
}

// Setup says what a session is made from. Settings and Logger are required.
type Setup struct {
	Settings *settings.Settings
	Logger   *slog.Logger
	// Untraced makes no spans, also where the environment names a collector: a check of the peers
	// is no upload.
	Untraced bool
}

// Open opens a session. It can wait for the first certificate, a minute at most. The caller closes the
// session, also if it makes no client.
func Open(u *ui.UI, c *cli.Context, from Setup) (_ *Session, err error) {
	s := &Session{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close(c.Context))
		}
	}()
	if s.Config, err = ingestConfig(from.Settings, from.Logger); err != nil {
		return nil, err
	}
	if !from.Untraced {
		if s.tracer, err = openTracer(c.Context, u); err != nil {
			return nil, err
		}
		s.tracer.trace(&s.Config)
	}
	if s.untrust, err = openTrust(c.Context, from.Settings, &s.Config); err != nil {
		return nil, err
	}
	if s.Identity, err = openIdentity(u, c, from.Settings, from.Logger); err != nil {
		return nil, err
	}
	return s, nil
}

// openTrust opens the trust bundles that the settings name for the token endpoint or for the Storage
// Elements alone, and puts them into cfg. Their files are watched like those of the identity. The
// function that it returns closes them, and is called after the clients were closed.
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

// openIdentity opens the identity that the settings describe, or returns nil if they say that there is
// no TLS.
func openIdentity(u *ui.UI, c *cli.Context, s *settings.Settings, logger *slog.Logger) (*rotation.Identity, error) {
	if !s.TLS.Enabled {
		return nil, nil
	}
	return identity.Open(c.Context, u, identity.Options{
		Cert: s.TLS.Cert, Key: s.TLS.Key, CA: s.TLS.CA,
		URL: s.Authority.URL, TokenFile: s.Authority.TokenFile, State: s.Authority.State, Fingerprint: s.Authority.RootFingerprint,
		AuthorityName: s.Authority.AuthorityName, TrustRefresh: s.Authority.TrustRefresh,
	}, logger)
}

// ForElement returns cfg with the Storage Element at url as its only one.
func ForElement(cfg ingestclient.Config, url string) ingestclient.Config {
	cfg.Elements = []ingestclient.Element{{URL: url}}
	return cfg
}
