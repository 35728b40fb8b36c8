package settings

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/humantime"
)

// Setting is one row of the table.
type Setting struct {
	// Key is section.name in a YAML file.
	Key string
	// Also has further variables, which ArtStore's own modules read.
	Also []string
	Flag string // without dashes; "" if there is none
	// FileFlag takes the path, for a value that may be in a file of its own.
	FileFlag string
	Arg      string   // the word for the argument of Flag in its help
	Default  string   // as text; "" if there is none
	Choices  []string // all values, if they are few
	// Doc is one sentence, with the unit and what the setting bounds.
	Doc string

	// variable is the name in the environment, if it is not made of Key.
	variable string
	// secret values are redacted where settings are shown.
	secret bool
	// off makes the text "off" a value, which is -1 in Settings.
	off bool
	// target returns a pointer to the field of the value; its type says how text is parsed.
	target func(*Settings) any
}

// FileSuffix makes the name of a setting into the name of its file's path.
const FileSuffix = "_FILE"

// Variable is the name of the setting in the environment and in errors.
func (r Setting) Variable() string {
	if r.variable != "" {
		return r.variable
	}
	return strings.ToUpper(strings.ReplaceAll(r.Key, ".", "__"))
}

// Variables are all names that the environment may use for the value.
func (r Setting) Variables() []string { return append([]string{r.Variable()}, r.Also...) }

// FromFile reports whether the value may be in a file of its own.
func (r Setting) FromFile() bool {
	_, ok := r.target(new(Settings)).(*Text)
	return ok
}

// IsBool reports whether the setting is a switch.
func (r Setting) IsBool() bool { return r.Type() == typeBool }

// Table returns all settings, in the order of the documentation.
func Table() []Setting { return slices.Concat(tokenRows(), storageRows(), tlsRows(), uploadRows()) }

// tokenRows are the settings of tokens. A target returns a pointer to the field, and the type
// of the pointer says how the text is parsed; see Setting.parse. Defaults come from
// ingestclient, so that they stand in one place.
func tokenRows() []Setting {
	defaults := ingestclient.Defaults()
	return []Setting{
		{
			Key: "admin_module.base_url", Also: []string{"ADMIN_MODULE_BASE_URL", "SERVICE_ACCOUNT_ADMIN_MODULE_URL"}, Flag: "admin-url", Arg: "URL",
			Default: "https://artstore_admin_module:8000", Doc: "base URL of the Admin Module; tokens come from /api/v1/auth/token under it",
			target: func(s *Settings) any { return (*address)(&s.Token.AdminURL) },
		},
		{
			Key: "admin_module.token_url", Flag: "token-url", Arg: "URL", Doc: "whole URL of the token endpoint, if it is another one, such as Keycloak's",
			target: func(s *Settings) any { return (*lookup)(&s.Token.URL) },
		},
		{
			Key: "admin_module.registry_url", Arg: "URL",
			Doc:    "whole URL at which the Admin Module lists its Storage Elements, instead of their addresses; read anew each minute",
			target: func(s *Settings) any { return (*lookup)(&s.Storage.Registry) },
		},
		{
			Key: "admin_module.ca_cert_file", Doc: "trust bundle, PEM, for the token endpoint and the registry, instead of tls.ca_cert_file or the authority's; watched for changes",
			target: func(s *Settings) any { return &s.Token.CA },
		},
		{
			Key: "admin_module.proxy_url", secret: true,
			Doc:    "proxy that is asked for a tunnel to them (CONNECT), as http://host:port; one with a password belongs into a file. The environment's HTTPS_PROXY is not read",
			target: func(s *Settings) any { return &s.Token.Proxy },
		},
		{
			Key: "admin_module.timeout", Also: []string{"ADMIN_MODULE_TIMEOUT", "SERVICE_ACCOUNT_TIMEOUT"}, Default: humantime.Format(defaults.TokenTimeout),
			Doc:    "bounds one token request, whoever waits for it",
			target: func(s *Settings) any { return &s.Token.Timeout },
		},
		{
			Key: "admin_module.dialect", Flag: "dialect", Arg: "NAME", Default: "json", Choices: []string{"json", "form"},
			Doc:    "encoding of token requests: json (ArtStore) or form (RFC 6749, Keycloak)",
			target: func(s *Settings) any { return &s.Token.Dialect },
		},
		{
			Key: "service_account.client_id", Also: []string{"SERVICE_ACCOUNT_CLIENT_ID"}, Flag: "client-id", FileFlag: "client-id-file", Arg: "ID",
			Doc:    "id of the service account",
			target: func(s *Settings) any { return &s.Account.ID },
		},
		{
			Key: "service_account.client_secret", Also: []string{"SERVICE_ACCOUNT_CLIENT_SECRET"}, FileFlag: "client-secret-file", secret: true,
			Doc:    "its secret; a file is read anew for each token, so a replaced secret is used at once",
			target: func(s *Settings) any { return &s.Account.Secret },
		},
		{
			Key: "service_account.auth_method", Flag: "client-auth", Arg: "METHOD", Default: "post", Choices: []string{"post", "basic", "private_key_jwt", "tls_client_auth"},
			Doc:    "how the account proves itself: post (secret in the body) or, with dialect form only, basic (RFC 6749 section 2.3.1), private_key_jwt (RFC 7523) or tls_client_auth (RFC 8705)",
			target: func(s *Settings) any { return &s.Account.Method },
		},
		{
			Key: "service_account.client_key", FileFlag: "client-key-file", secret: true,
			Doc:    "private key, PEM, that signs the assertions of private_key_jwt; a file is read anew for each token",
			target: func(s *Settings) any { return &s.Account.Key },
		},
		{
			Key: "service_account.client_key_id", Doc: "the kid by which the token endpoint knows that key",
			target: func(s *Settings) any { return &s.Account.KeyID },
		},
		{
			Key: "service_account.scope", Doc: "scope asked for, with dialect form only",
			target: func(s *Settings) any { return &s.Account.Scope },
		},
		{
			Key: "token.default_lifetime", Default: humantime.Format(defaults.DefaultTokenLifetime), Doc: "lifetime of tokens whose answer has no expires_in",
			target: func(s *Settings) any { return &s.Token.Lifetime },
		},
		{
			Key: "token.lag", Default: humantime.Format(defaults.TokenLag), off: true, Doc: "how long a Storage Element may refuse a fresh token because it does not know the signing key yet; or off",
			target: func(s *Settings) any { return &s.Token.Lag },
		},
	}
}

// storageRows are the settings of Storage Elements. There is no default for their addresses,
// because no file may go to a server that the operator has not named.
func storageRows() []Setting {
	defaults := ingestclient.Defaults()
	return []Setting{
		{
			Key: "storage_element.base_url", Also: []string{"STORAGE_ELEMENT_BASE_URL"}, Flag: "storage-url", Arg: "URL",
			Doc:    "base URL of the Storage Element; several are separated by commas or spaces: the first takes files, the next when it is down, full or in a mode that takes none",
			target: func(s *Settings) any { return &s.Storage.URLs },
		},
		{
			Key: "storage_element.ca_cert_file", Doc: "trust bundle, PEM, for Storage Elements, instead of tls.ca_cert_file or the authority's; watched for changes",
			target: func(s *Settings) any { return &s.Storage.CA },
		},
		{
			Key: "storage_element.proxy_url", secret: true,
			Doc:    "proxy that is asked for a tunnel to them (CONNECT), as http://host:port; one with a password belongs into a file",
			target: func(s *Settings) any { return &s.Storage.Proxy },
		},
		{
			Key: "storage_element.timeout", Also: []string{"STORAGE_ELEMENT_TIMEOUT"}, Flag: "timeout", Arg: "TIME", Default: humantime.Format(defaults.ResponseTimeout),
			Doc:    "wait for an answer after the last byte; never a limit on the whole upload",
			target: func(s *Settings) any { return &s.Storage.Timeout },
		},
		{
			Key: "storage_element.connection_pool_size", Also: []string{"STORAGE_ELEMENT_CONNECTION_POOL_SIZE"}, Default: strconv.Itoa(defaults.PoolSize),
			Doc:    "most connections to one Storage Element, and so with HTTP/1.1 most uploads at a time",
			target: func(s *Settings) any { return &s.Storage.PoolSize },
		},
		{
			Key: "storage_element.max_retries", Also: []string{"STORAGE_ELEMENT_MAX_RETRIES"}, Default: strconv.Itoa(defaults.MaxAttempts - 1),
			Doc:    "how often an upload is repeated, where that is safe; retries for a rejected token are not counted",
			target: func(s *Settings) any { return &s.Storage.MaxRetries },
		},
		{
			Key: "storage_element.max_retry_after", Default: humantime.Format(defaults.MaxRetryAfter), Doc: "longest Retry-After that is obeyed",
			target: func(s *Settings) any { return &s.Storage.MaxRetryAfter },
		},
		{
			Key: "storage_element.http2", Default: "false", Doc: "let uploads negotiate HTTP/2, which costs CPU and, with latency, throughput",
			target: func(s *Settings) any { return &s.Storage.HTTP2 },
		},
	}
}

// tlsRows are the settings of certificates: from files, or from an authority. Those of an
// authority have the variables that all commands share.
func tlsRows() []Setting {
	return []Setting{
		{
			Key: "tls.enabled", Also: []string{"TLS_ENABLED"}, Default: "true", Doc: "mutual TLS; false needs tls.allow_cleartext and http:// addresses",
			target: func(s *Settings) any { return &s.TLS.Enabled },
		},
		{
			Key: "tls.cert_file", Also: []string{"TLS_CERT_FILE"}, Flag: "cert", Arg: "FILE", Doc: "certificate chain, PEM, leaf first; watched for changes",
			target: func(s *Settings) any { return &s.TLS.Cert },
		},
		{
			Key: "tls.key_file", Also: []string{"TLS_KEY_FILE"}, Flag: "key", Arg: "FILE", Doc: "private key, PEM, mode 0600",
			target: func(s *Settings) any { return &s.TLS.Key },
		},
		{
			Key: "tls.ca_cert_file", Also: []string{"TLS_CA_CERT_FILE"}, Flag: "ca-cert", Arg: "FILE", Doc: "trust bundle, PEM; the system's roots are never used",
			target: func(s *Settings) any { return &s.TLS.CA },
		},
		{
			Key: "tls.protocol_version", Also: []string{"TLS_PROTOCOL_VERSION"}, Default: "TLSv1.3", Choices: []string{"TLSv1.3", "TLSv1.2"},
			Doc:    "lowest TLS version that is spoken: TLSv1.3 or TLSv1.2",
			target: func(s *Settings) any { return (*version)(&s.TLS.MinVersion) },
		},
		{
			Key: "tls.ciphers", Also: []string{"TLS_CIPHERS"}, Doc: "under TLSv1.2 the suites to offer, by OpenSSL or IANA name; under TLSv1.3 a list must name all three suites, as ArtStore's default does, and changes nothing",
			target: func(s *Settings) any { return &s.TLS.ciphers },
		},
		{
			Key: "tls.verify_mode", Also: []string{"TLS_VERIFY_MODE"}, Default: "CERT_REQUIRED", Choices: []string{"CERT_REQUIRED", "CERT_OPTIONAL"},
			Doc:    "read because ArtStore's files have it; servers are always verified, so CERT_NONE is refused",
			target: func(s *Settings) any { return &s.TLS.verifyMode },
		},
		{
			Key: "tls.allow_cleartext", Flag: "allow-cleartext", Default: "false", Doc: "permit http:// addresses, over which secret, tokens and files travel readable",
			target: func(s *Settings) any { return &s.TLS.AllowCleartext },
		},
		{
			Key: "authority.url", variable: "ARTSTORE_PKI_CA_URL", Flag: "ca-url", Arg: "URL", Doc: "authority that issues and renews the certificate, instead of files",
			target: func(s *Settings) any { return (*address)(&s.Authority.URL) },
		},
		{
			Key: "authority.token_file", variable: "ARTSTORE_PKI_TOKEN_FILE", Flag: "token-file", Arg: "FILE", Doc: "one-time enrolment token for it; - reads standard input",
			target: func(s *Settings) any { return &s.Authority.TokenFile },
		},
		{
			Key: "authority.state", variable: "ARTSTORE_PKI_STATE", Flag: "state", Arg: "DIR", Doc: "directory for the certificate that it issues",
			target: func(s *Settings) any { return &s.Authority.State },
		},
		{
			Key: "authority.root_fingerprint", variable: "ARTSTORE_PKI_ROOT_FINGERPRINT", Flag: "root-fingerprint", Arg: "HEX",
			Doc:    "SHA-256 of the authority's root; the token has it too",
			target: func(s *Settings) any { return &s.Authority.RootFingerprint },
		},
		{
			Key: "authority.name", variable: "ARTSTORE_PKI_AUTHORITY_NAME", Flag: "authority-name", Arg: "NAME",
			Doc:    "name in the certificate of a stock step-ca, which does not say that it is an authority; any service that can obtain the name can pass for it",
			target: func(s *Settings) any { return &s.Authority.AuthorityName },
		},
		{
			Key: "authority.trust_refresh", variable: "ARTSTORE_PKI_TRUST_REFRESH",
			Doc:    "how often the trust bundle and the revoked lists are looked at, and so how long a revoked peer may stay; empty is a sixth of the certificate's life, 1h at most",
			target: func(s *Settings) any { return &s.Authority.TrustRefresh },
		},
	}
}

// uploadRows are the limits at which an upload is ended or slowed down.
func uploadRows() []Setting {
	defaults := ingestclient.Defaults()
	return []Setting{
		{
			Key: "upload.stall_timeout", Default: humantime.Format(defaults.StallTimeout), off: true, Doc: "ends an upload that moves no byte for so long; or off",
			target: func(s *Settings) any { return &s.Upload.StallTimeout },
		},
		{
			Key: "upload.min_rate", Default: formatSize(defaults.MinRate), off: true, Doc: "ends an upload that moves fewer bytes per second, averaged over a minute; or off",
			target: func(s *Settings) any { return (*size)(&s.Upload.MinRate) },
		},
		{
			Key: "upload.max_rate", Default: "off", off: true, Doc: "limits all uploads together to so many bytes per second; or off",
			target: func(s *Settings) any { return (*size)(&s.Upload.MaxRate) },
		},
		{
			Key: "upload.expect_threshold", Default: formatSize(defaults.ExpectFrom), off: true, Doc: "size of a file from which the Storage Element is asked before the body is sent (Expect: 100-continue); or off",
			target: func(s *Settings) any { return (*size)(&s.Upload.ExpectFrom) },
		},
	}
}

// formatSize returns the shortest text that parseSize reads as n.
func formatSize(n int64) string {
	unit := 0
	for n >= 1<<10 && n%(1<<10) == 0 && unit < 3 {
		n >>= 10
		unit++
	}
	return fmt.Sprint(n) + []string{"", "KiB", "MiB", "GiB"}[unit]
}
