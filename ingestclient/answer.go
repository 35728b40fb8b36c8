package ingestclient

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/artstore/artstore-pki/internal/printable"
)

const (
	maxAnswer  = 1 << 20
	maxMessage = 200 // runes of an answer's message that get into an error
)

// answer is what an element of either dialect says about a stored file.
type answer struct {
	fileID string
	name   string
	size   int64  // -1 if it is not in the answer
	sha256 string // lower-case hex, "" if it is not in the answer
	at     time.Time
	status string
	kept
}

func (a answer) file() *File {
	return &File{FileID: a.fileID, Name: a.name, Size: a.size, SHA256: a.sha256, Uploaded: a.at, Status: a.status}
}

// parseAnswer reads the body of a 2xx to an upload or a metadata request. The Python dialect
// calls the size file_size, the Go one size; both have the id and the SHA-256 in hex. An
// answer without an id is an error.
func parseAnswer(raw []byte) (answer, error) {
	var a struct {
		FileID   string `json:"file_id"`
		Name     string `json:"original_filename"`
		FileSize *int64 `json:"file_size"`
		Size     *int64 `json:"size"`
		Checksum string `json:"checksum"`
		Uploaded string `json:"uploaded_at"` // Go
		Created  string `json:"created_at"`  // Python
		Status   string `json:"status"`

		Description string   `json:"description"`
		Tags        []string `json:"tags"`
		Retention   string   `json:"retention_policy"`
		TTLDays     int      `json:"ttl_days"`
	}
	if err := json.Unmarshal(raw, &a); err != nil {
		return answer{}, errors.New("not a JSON object of the file API")
	}
	if !validID(a.FileID) {
		return answer{}, errors.New("no usable file_id in it")
	}
	out := answer{fileID: a.FileID, name: a.Name, size: -1, sha256: strings.TrimPrefix(strings.ToLower(a.Checksum), "sha256:")}
	out.at, _ = time.Parse(time.RFC3339, cmp.Or(a.Uploaded, a.Created)) // fails without a time zone, and then the time is unknown
	out.status = clean(a.Status)
	out.kept = kept{a.FileSize != nil, a.FileID, a.Description, a.Tags, a.Retention, a.TTLDays}
	switch {
	case a.FileSize != nil:
		out.size = *a.FileSize
	case a.Size != nil:
		out.size = *a.Size
	}
	if out.size < -1 || out.sha256 != "" && !sha256Hex.MatchString(out.sha256) {
		return answer{}, errors.New("size or checksum are not such")
	}
	return out, nil
}

var (
	sha256Hex = regexp.MustCompile(`^[0-9a-f]{64}$`)
	fileID    = regexp.MustCompile(`^[0-9A-Za-z_-][0-9A-Za-z_.-]{0,127}$`)
	// tokenShaped matches text that is long enough to be a credential. A message of a
	// server that quotes one must not bring it into a log.
	tokenShaped = regexp.MustCompile(`[0-9A-Za-z_.~+/=-]{40,}`)
	errorCode   = regexp.MustCompile(`^[0-9A-Za-z_.-]{1,64}$`)
)

// validID reports whether id is one element of a path, so that it cannot lead to another
// path of the API.
func validID(id string) bool { return fileID.MatchString(id) }

// check compares what was stored with what was sent.
func (a answer) check(b *body) error {
	switch {
	case a.size < 0 || a.sha256 == "":
		return fmt.Errorf("%w: it names no size or no checksum", ErrAnswer)
	case a.size != b.size:
		return fmt.Errorf("%w: %d bytes were sent, %d are stored", ErrChecksum, b.size, a.size)
	case !b.is(a.size, a.sha256):
		return fmt.Errorf("%w: SHA-256 sent %s, stored %s", ErrChecksum, b.digestHex(), a.sha256)
	}
	return nil
}

// parseError finds code and message in all forms of errors that ArtStore's services send:
// {"error":{"code","message"}}, {"error":"…"} with error_description, {"detail": string, list
// or object}, plain text, or nothing. It never fails. The results are short, and have
// neither control characters nor credentials.
func parseError(raw []byte) (code, message string) {
	var body struct {
		Error       json.RawMessage `json:"error"`
		Description string          `json:"error_description"`
		Detail      json.RawMessage `json:"detail"`
		Message     string          `json:"message"`
	}
	if err := json.Unmarshal(raw, &body); err != nil {
		if len(raw) > 0 && (raw[0] == '{' || raw[0] == '[' || raw[0] == '<') {
			return "", "" // broken JSON or a proxy's page of HTML: nothing to show
		}
		return "", clean(string(raw[:min(len(raw), 4*maxMessage)]))
	}
	code, message = parsePart(body.Error)
	if code == "" && errorCode.MatchString(message) {
		code, message = message, body.Description
	}
	if _, detail := parsePart(body.Detail); message == "" {
		message = detail
	}
	message = cmp.Or(message, body.Message)
	if !errorCode.MatchString(code) || tokenShaped.MatchString(code) {
		code = ""
	}
	return code, clean(message)
}

// parsePart reads "error" or "detail": text, an object, or FastAPI's list of objects. Of the
// list it takes only msg, because input repeats the request.
func parsePart(raw json.RawMessage) (code, message string) {
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return "", text
	}
	var object struct {
		Code    string `json:"code"`
		Error   string `json:"error"`
		Message string `json:"message"`
	}
	if json.Unmarshal(raw, &object) == nil {
		return cmp.Or(object.Code, object.Error), object.Message
	}
	var list []struct {
		Msg string `json:"msg"`
	}
	if json.Unmarshal(raw, &list) == nil && len(list) > 0 {
		return "", list[0].Msg
	}
	return "", ""
}

// clean makes text of a server printable, on one line and of maxMessage runes at most. Tokens
// are removed before the text is cut, because half of a token is too short to be recognised.
func clean(s string) string {
	return printable.Line(tokenShaped.ReplaceAllString(printable.Line(s, len(s)), "[…]"), maxMessage)
}

// readAnswer reads and closes the body of resp. If it cannot be read, the status
// still counts; what was there of the body is returned with the error.
func readAnswer(resp *http.Response) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	_ = resp.Body.Close() // everything of use was read
	return raw, err
}
