package devstack

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strconv"
	"time"

	"github.com/artstore/artstore-pki/internal/uuid"
)

const (
	// maxField bounds one field of the form, in bytes.
	maxField = 64 << 10
	// maxParts bounds the fields and files of a form: each may cost maxField of memory.
	maxParts = 32
	// maxFormOverhead bounds what a request has besides the content of the file, in bytes.
	maxFormOverhead = 1 << 20
	// temporaryTTL is the lifetime in days that a file gets in mode edit. Go dialect only.
	temporaryTTL = 30
	scopeWrite   = "files:write"
	scopeRead    = "files:read"
)

var (
	errNoFile    = errors.New("the field file is missing or has no name")
	errMalformed = errors.New("the form is malformed")
)

// form is an upload that was read to its end.
type form struct {
	in          *incoming
	name        string // base name
	contentType string
	fields      map[string]string
	tags        []string
}

// readForm reads a multipart form part by part (RFC 7578), so that memory does not grow with
// the file: receive gets the content as a stream. After an error the content is discarded.
func readForm(mr *multipart.Reader, receive func(io.Reader) (*incoming, error)) (*form, error) {
	f := &form{fields: map[string]string{}}
	complete := false
	defer func() { // a flag, not err: a dropped connection unwinds as a panic
		if !complete && f.in != nil {
			f.in.discard()
		}
	}()
	for range maxParts {
		// Raw: the real services do not decode transfer encodings either.
		part, err := mr.NextRawPart()
		if errors.Is(err, io.EOF) {
			if f.in == nil {
				return nil, errNoFile
			}
			complete = true
			return f, f.finish()
		}
		if err != nil {
			return nil, &readError{err}
		}
		if err := f.readPart(part, receive); err != nil {
			return nil, err
		}
	}
	return nil, errMalformed
}

// readPart reads the file or one field. A second file is an error.
func (f *form) readPart(part *multipart.Part, receive func(io.Reader) (*incoming, error)) (err error) {
	if part.FormName() != "file" {
		data, err := io.ReadAll(io.LimitReader(part, maxField+1))
		if err != nil {
			return &readError{err}
		}
		if len(data) > maxField {
			return errMalformed
		}
		f.fields[part.FormName()] = string(data)
		return nil
	}
	if f.in != nil {
		return errMalformed
	}
	if f.name = part.FileName(); f.name == "" {
		return errNoFile
	}
	if f.contentType = part.Header.Get("Content-Type"); f.contentType == "" {
		f.contentType = "application/octet-stream"
	}
	f.in, err = receive(part)
	return err
}

// finish checks the tags, which must be a JSON array of strings. It discards the content on
// failure.
func (f *form) finish() error {
	tags := f.fields["tags"]
	if tags == "" {
		return nil
	}
	if err := json.Unmarshal([]byte(tags), &f.tags); err != nil {
		f.in.discard()
		return errMalformed
	}
	return nil
}

// serveUpload counts an upload with the status of its answer.
func (s *Storage) serveUpload(w http.ResponseWriter, r *http.Request) {
	status := s.upload(w, r)
	s.metrics.requests.WithLabelValues(strconv.Itoa(status)).Inc()
}

// upload stores a file and answers. It decides all it can before it reads the body: the
// token, its scope, the mode, and whether the announced size can fit. So a client that asks
// with "Expect: 100-continue" (RFC 9110 §10.1.1) does not send a body in vain.
func (s *Storage) upload(w http.ResponseWriter, r *http.Request) (status int) {
	who, p := s.authorise(r, scopeWrite)
	if p == noProblem && s.cfg.Mode != modeEdit && s.cfg.Mode != modeRW {
		p = problemMode
	}
	if p != noProblem {
		s.stopReadingBody(w, r)
		return s.fail(w, p, string(s.cfg.Mode))
	}
	bad := s.faults.choose("upload")
	r.Body = &idleBody{ReadCloser: r.Body, rc: http.NewResponseController(w), idle: s.cfg.BodyIdle}
	if status := bad.beforeBody(r); status != 0 {
		s.stopReadingBody(w, r)
		return s.failStatus(w, status)
	}
	if r.ContentLength > s.cfg.MaxFileSize+maxFormOverhead {
		s.stopReadingBody(w, r)
		return s.fail(w, problemTooLarge, "")
	}
	r.Body = http.MaxBytesReader(w, r.Body, s.cfg.MaxFileSize+maxFormOverhead)
	mr, err := r.MultipartReader()
	if err != nil {
		return s.fail(w, problemNoFile, "")
	}
	f, err := readForm(mr, s.files.receive)
	if err != nil {
		return s.failUpload(w, err, "")
	}
	defer f.in.discard() // nothing, once committed
	m, err := s.describe(f, who)
	if err != nil {
		return s.failUpload(w, err, "")
	}
	if err := f.in.commit(m); err != nil {
		return s.failUpload(w, err, m.ID)
	}
	checksum := m.SHA256
	if bad != nil && bad.Kind == "checksum" {
		checksum = newSum(checksum)
	}
	if bad != nil && bad.AfterStore {
		if status := bad.apply(r.Context()); status != 0 {
			return s.failStatus(w, status)
		}
	}
	writeJSON(w, http.StatusCreated, s.cfg.Dialect.uploaded(m, checksum))
	return http.StatusCreated
}

// stopReadingBody prepares an answer that does not wait for the body. Without it net/http
// reads up to 256 KiB of the body first, for as long as the client takes. A small body is
// still read, within BodyIdle, so that the connection can be used again.
func (s *Storage) stopReadingBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && (r.ContentLength < 0 || r.ContentLength > maxField) {
		w.Header().Set("Connection", "close")
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(s.cfg.BodyIdle)) // fails for the recorder of a test only
}

// beforeBody applies the fault now, or puts it into the body. A nil fault does nothing.
func (s *activeFault) beforeBody(r *http.Request) (status int) {
	if s == nil || s.AfterStore {
		return 0
	}
	if s.AfterBytes == 0 && s.Kind != "trickle" {
		return s.apply(r.Context())
	}
	r.Body = struct {
		io.Reader
		io.Closer
	}{&faultyBody{Reader: r.Body, ctx: r.Context(), fault: s, left: s.AfterBytes}, r.Body}
	return 0
}

// describe makes the metadata of an upload. In the Python dialect the client may choose the
// id, which must be a UUID because it becomes the name of a file; the Go dialect ignores it.
func (s *Storage) describe(f *form, who *tokenInfo) (*metadata, error) {
	m := &metadata{
		ID: uuid.New(), Name: f.name, ContentType: f.contentType, Description: f.fields["description"], Version: f.fields["version"],
		Tags: f.tags, Retention: "permanent", UploadedBy: who.subject, UploadedAt: time.Now().UTC(),
	}
	if s.cfg.Mode == modeEdit {
		m.Retention, m.TTLDays = "temporary", temporaryTTL
	}
	if id := f.fields["file_id"]; id != "" && s.cfg.Dialect == python {
		if !uuidForm.MatchString(id) {
			return nil, errMalformed
		}
		m.ID = id
	}
	return m, nil
}

// failUpload answers with the problem that an error stands for. Only an error of this side is
// logged: clients cause all others.
func (s *Storage) failUpload(w http.ResponseWriter, err error, id string) int {
	status, faulty := errors.AsType[errStatus](err)
	_, tooMany := errors.AsType[*http.MaxBytesError](err)
	_, broken := errors.AsType[*readError](err)
	switch {
	case faulty:
		return s.failStatus(w, int(status))
	case errors.Is(err, errTooLarge), tooMany:
		return s.fail(w, problemTooLarge, "")
	case errors.Is(err, errFull):
		return s.fail(w, problemFull, "")
	case errors.Is(err, errDuplicate):
		return s.fail(w, problemDuplicate, id)
	case errors.Is(err, errNoFile):
		return s.fail(w, problemNoFile, "")
	case errors.Is(err, errMalformed), broken:
		return s.fail(w, problemMalformed, "")
	}
	s.log.Error("upload not stored", "err", err)
	return s.fail(w, problemInternal, "")
}

// failStatus answers with the status of a fault, in the words of the dialect.
func (s *Storage) failStatus(w http.ResponseWriter, status int) int {
	for p, a := range goAnswers {
		if a.status == status && p != problemDuplicate {
			return s.fail(w, p, "")
		}
	}
	writeError(w, s.cfg.Dialect, answer{status, "FAULT", fmt.Sprintf("status %d on demand", status)})
	return status
}

// newSum returns another checksum of the same form.
func newSum(sum string) string {
	if sum[0] == '0' {
		return "1" + sum[1:]
	}
	return "0" + sum[1:]
}

// idleBody ends a body that moves no byte for the idle time. A limit for the whole body would
// end large files on slow networks.
type idleBody struct {
	io.ReadCloser
	rc   *http.ResponseController
	idle time.Duration
}

// Read gives the client the idle time once more, for these bytes.
func (b *idleBody) Read(p []byte) (int, error) {
	_ = b.rc.SetReadDeadline(time.Now().Add(b.idle)) // fails for the recorder of a test only
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		_ = b.rc.SetReadDeadline(time.Time{}) // the answer may take longer
	}
	return n, err
}
