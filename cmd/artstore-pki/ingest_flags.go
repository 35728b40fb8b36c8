package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/secret"
)

const (
	envClientSecret = "SERVICE_ACCOUNT__CLIENT_SECRET"
	categoryAccount = "service account and endpoints"
)

// accountFlags say who uploads, with ArtStore's own names of the settings.
func accountFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "token-url", Category: categoryAccount, EnvVars: []string{"ADMIN_MODULE__TOKEN_URL"}, Usage: "`URL` of the token endpoint (default: /api/v1/auth/token under --admin-url)"},
		&cli.StringFlag{Name: "admin-url", Category: categoryAccount, EnvVars: []string{"ADMIN_MODULE__BASE_URL"}, Value: "https://artstore_admin_module:8000", Usage: "base `URL` of the Admin Module"},
		&cli.StringFlag{Name: "dialect", Category: categoryAccount, Value: "json", Usage: "encoding of token requests: json (ArtStore) or form (Keycloak)"},
		&cli.StringFlag{Name: "client-id", Category: categoryAccount, EnvVars: []string{"SERVICE_ACCOUNT__CLIENT_ID"}, Usage: "`ID` of the service account"},
		&cli.StringFlag{Name: "client-id-file", Category: categoryAccount, Usage: "`FILE` with the id, instead of --client-id"},
		&cli.StringFlag{Name: "client-secret-file", Category: categoryAccount, EnvVars: []string{envClientSecret + "_FILE"}, Usage: "`FILE` with its secret; else $" + envClientSecret},
		&cli.DurationFlag{Name: "timeout", Category: "transfer", Value: 30 * time.Second, Usage: "wait for an answer after the last byte; never a limit on the whole upload"},
	}
}

// ingestConfigs makes one configuration for each Storage Element. Everything
// that is missing is said at once.
func (u *ui) ingestConfigs(c *cli.Context, storageURLs []string) ([]ingestclient.Config, error) {
	cfg := ingestclient.Config{
		TokenURL:        c.String("token-url"),
		Dialect:         ingestclient.Dialect(c.String("dialect")),
		ResponseTimeout: c.Duration("timeout"),
	}
	var missing []error
	if cfg.TokenURL == "" {
		if err := httpsURL("admin-url", c.String("admin-url")); err != nil {
			missing = append(missing, err)
		}
		cfg.TokenURL = c.String("admin-url") + "/api/v1/auth/token"
	}
	if strings.Join(storageURLs, "") == "" {
		missing = append(missing, errors.New("missing --storage-url (STORAGE_ELEMENT__BASE_URL)"))
	}
	id, err := clientID(c)
	if err != nil {
		return nil, err
	}
	if cfg.ClientID = id; id == "" {
		missing = append(missing, errors.New("missing --client-id (SERVICE_ACCOUNT__CLIENT_ID)"))
	}
	file, fromEnv := c.String("client-secret-file"), secret.New(u.getenv(envClientSecret))
	if file == "" && fromEnv.IsZero() {
		missing = append(missing, errors.New("missing --client-secret-file (or "+envClientSecret+")"))
	}
	if err := errors.Join(missing...); err != nil {
		return nil, &usage{err}
	}
	cfg.ClientSecret = clientSecret(file, fromEnv)
	configs := make([]ingestclient.Config, len(storageURLs))
	for i, url := range storageURLs {
		configs[i] = cfg
		configs[i].StorageURL = url
	}
	return configs, nil
}

// clientID is no secret, but where the secret is in a file the id is beside it.
func clientID(c *cli.Context) (string, error) {
	path := c.String("client-id-file")
	if path == "" {
		return c.String("client-id"), nil
	}
	if c.IsSet("client-id") {
		return "", usagef("--client-id and --client-id-file: want one of them")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("reading the client id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func clientSecret(file string, otherwise secret.String) func(context.Context) (ingestclient.Secret, error) {
	return func(context.Context) (ingestclient.Secret, error) {
		if file == "" {
			return otherwise, nil
		}
		s, err := secret.ReadFile(file) // anew each time: a rotated secret is used at once
		if err != nil {
			return s, fmt.Errorf("reading the client secret: %w", err)
		}
		return s, nil
	}
}
