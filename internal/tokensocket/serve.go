package tokensocket

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/artstore/artstore-pki/httpserver"
	"github.com/artstore/artstore-pki/ingestclient"
	"github.com/artstore/artstore-pki/internal/printable"
	"github.com/artstore/artstore-pki/secret"
)

// Limits on clients. They are all on this machine, and a request is a few hundred bytes.
const (
	maxConns   = 128
	maxBody    = 64 << 10 // a token of 16 KiB with each byte escaped
	idle       = 30 * time.Second
	bodyTime   = 10 * time.Second
	tokenWait  = 25 * time.Second // for a token that has to be fetched first
	answerTime = 40 * time.Second // a request with its answer; more than bodyTime and tokenWait
)

// rejectEvery is the shortest time between two rejections that replace a token. A server that
// refuses a fresh token would refuse the next one too.
const rejectEvery = 5 * time.Second

// Outcomes of requests, for [Config.Observer].
const (
	Served   = "served"   // a token was handed out
	Failed   = "failed"   // there was none
	Rejected = "rejected" // a rejection that replaces the token
	Late     = "late"     // a rejection of a token that was replaced already
	Limited  = "limited"  // a rejection too soon after another one
)

// Config says what to serve. Client is required.
type Config struct {
	Client *ingestclient.Client
	// Observer is called with the outcome of each request. It must not block. nil means none.
	Observer func(outcome string)
	// Logger gets failures to get a token for a request, at debug level: the client
	// logs when an outage begins and ends. nil means slog.Default.
	Logger *slog.Logger
}

// Serve answers on ln, which [Listen] made, until ctx ends, and closes it.
func Serve(ctx context.Context, ln net.Listener, cfg Config) error {
	s := newServer(ctx, cfg)
	return httpserver.Serve(ctx, ln, httpserver.Config{
		Handler: s.handler(),
		// The connections of a Unix socket have no address, so all count as one.
		Conns:       func() httpserver.Conns { return httpserver.Conns{Total: maxConns, PerAddress: maxConns} },
		Idle:        idle,
		BodyTimeout: bodyTime, WriteTimeout: answerTime,
		Logger: s.Logger,
	})
}

type server struct {
	Config
	life context.Context // ends with the server, and with it all waits for a token

	mu       sync.Mutex        // guards the rest
	rejected [sha256.Size]byte // digest of the token whose rejection counted last
	at       time.Time         // when that was
}

func newServer(ctx context.Context, cfg Config) *server {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Observer == nil {
		cfg.Observer = func(string) {}
	}
	return &server{Config: cfg, life: ctx}
}

func (s *server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /token", s.token)
	mux.HandleFunc("POST /token/reject", s.reject)
	return mux
}

func (s *server) token(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), tokenWait)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	t, err := s.Client.AccessToken(ctx)
	if err != nil {
		s.Observer(Failed)
		s.Logger.Debug("no token for a request", "err", err)
		fail(w, err)
		return
	}
	s.Observer(Served)
	answer(w, http.StatusOK, NewAnswer(t, time.Now()))
}

// reject reads the form of RFC 7009 §2.1. As there (RFC 7009 §2.2), a token that is not the
// current one is no error, because it is replaced already.
func (s *server) reject(w http.ResponseWriter, r *http.Request) {
	token, status, text := readRejected(http.MaxBytesReader(w, r.Body, maxBody), r.Header)
	if status != 0 {
		problem(w, status, "invalid_request", text)
		return
	}
	outcome, wait := s.judge(token, time.Now())
	s.Observer(outcome)
	if outcome == Limited {
		retryAfter(w, wait)
		problem(w, http.StatusTooManyRequests, "slow_down", "a token was replaced a moment ago: get the current one, and try that first")
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// judge rejects the token at the client, unless the last rejection is too fresh;
// then wait says how long it is until the next one counts.
func (s *server) judge(token secret.String, now time.Time) (outcome string, wait time.Duration) {
	sum := sha256.Sum256([]byte(token.Expose()))
	s.mu.Lock()
	defer s.mu.Unlock()
	wait = s.at.Add(rejectEvery).Sub(now)
	switch {
	case sum == s.rejected:
		return Late, 0
	case wait > 0:
		return Limited, wait
	case !s.Client.RejectToken(token):
		return Late, 0
	}
	s.rejected, s.at = sum, now
	return Rejected, 0
}

// readRejected reads the token out of a form. A status other than 0 refuses it;
// the text never quotes the body.
func readRejected(body io.Reader, h http.Header) (token secret.String, status int, text string) {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return token, http.StatusUnsupportedMediaType, "want Content-Type: application/x-www-form-urlencoded"
	}
	raw, err := io.ReadAll(body)
	if _, tooLarge := errors.AsType[*http.MaxBytesError](err); tooLarge {
		return token, http.StatusRequestEntityTooLarge, "the body is longer than a token can be"
	}
	if err != nil {
		return token, http.StatusBadRequest, "the body could not be read"
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil || len(form["token"]) != 1 || form.Get("token") == "" {
		return token, http.StatusBadRequest, "want one parameter token"
	}
	return secret.New(form.Get("token")), 0, ""
}

// fail answers that there is no token, in the form of RFC 6749 §5.2: 503
// if it may pass, 502 if the token endpoint has refused us.
func fail(w http.ResponseWriter, err error) {
	status, code := http.StatusServiceUnavailable, "temporarily_unavailable"
	if auth, ok := errors.AsType[*ingestclient.AuthError](err); ok {
		retryAfter(w, auth.RetryAfter)
		if !auth.Temporary {
			status, code = http.StatusBadGateway, "server_error"
		}
		if auth.Code != "" {
			code = auth.Code
		}
	}
	problem(w, status, code, err.Error())
}

func retryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.FormatInt(max(1, int64(math.Ceil(wait.Seconds()))), 10))
}

// problem is the object of RFC 6749 §5.2, whose description has no quotes
// and no backslashes.
func problem(w http.ResponseWriter, status int, code, text string) {
	text = strings.Map(func(r rune) rune {
		if r == '"' || r == '\\' || r > '~' {
			return '\''
		}
		return r
	}, printable.Clean(text))
	answer(w, status, struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}{code, text})
}

func answer(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("Pragma", "no-cache") // RFC 6749 §5.1 wants both
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a peer that is gone needs no answer
}
