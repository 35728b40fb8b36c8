package devstack

import (
	"net/http"
	"time"
)

// Dialect says whose answers a Storage Element gives: "python" (the default) or
// "go". Anything else is refused.
type Dialect string

const (
	python Dialect = "python"
	golang Dialect = "go"
)

// Mode of a Storage Element: "edit" allows everything, "rw" (the default) all but
// deleting, "ro" reading, "ar" metadata only. Anything else is refused.
type Mode string

const (
	modeEdit Mode = "edit"
	modeRW   Mode = "rw"
	modeRO   Mode = "ro"
	modeAR   Mode = "ar"
)

// problem is the reason why a request is refused, in any dialect. Each has an answer in
// both tables below.
type problem int

const (
	noProblem problem = iota
	problemMalformed
	problemNoFile
	problemUnauthorized
	problemForbidden
	problemNotFound
	problemMode
	problemTooLarge
	problemFull
	problemDuplicate
	problemInternal
	problemNoKeys
	problemMethod
)

// answer is how one dialect words a problem.
type answer struct {
	status int
	// code is for the Go dialect only.
	code string
	text string
}

// goAnswers are those of the Go Storage Element. The real one answers in Russian. Clients
// must decide by status and code, so the texts here can be English.
var goAnswers = map[problem]answer{
	problemMalformed:    {http.StatusBadRequest, "VALIDATION_ERROR", "the multipart body cannot be read"},
	problemNoFile:       {http.StatusBadRequest, "VALIDATION_ERROR", "the field file is missing"},
	problemUnauthorized: {http.StatusUnauthorized, "UNAUTHORIZED", "the token is missing, expired or not valid"},
	problemForbidden:    {http.StatusForbidden, "FORBIDDEN", "the token's scopes do not allow this"},
	problemNotFound:     {http.StatusNotFound, "NOT_FOUND", "there is no such file"},
	problemMode:         {http.StatusConflict, "MODE_NOT_ALLOWED", "the mode does not allow this"},
	problemTooLarge:     {http.StatusRequestEntityTooLarge, "FILE_TOO_LARGE", "the file is larger than allowed"},
	problemFull:         {http.StatusInsufficientStorage, "STORAGE_FULL", "there is no room left"},
	problemDuplicate:    {http.StatusConflict, "ALREADY_EXISTS", "the file is already there"},
	problemInternal:     {http.StatusInternalServerError, "INTERNAL_ERROR", "something went wrong here"},
	problemNoKeys:       {http.StatusServiceUnavailable, "KEYS_UNAVAILABLE", "tokens cannot be checked now"},
	problemMethod:       {http.StatusMethodNotAllowed, "METHOD_NOT_ALLOWED", "method not allowed"},
}

// pythonAnswers are those of the Python Storage Element. The real one has no 413 and no
// 507. This one has its limits in both dialects: a test that passes with one would
// otherwise fill the disk with the other.
var pythonAnswers = map[problem]answer{
	problemMalformed:    {http.StatusBadRequest, "", "There was an error parsing the body"},
	problemNoFile:       {http.StatusUnprocessableEntity, "", "Field required"},
	problemUnauthorized: {http.StatusUnauthorized, "", "Invalid or expired token"},
	problemForbidden:    {http.StatusForbidden, "", "Not enough permissions"},
	problemNotFound:     {http.StatusNotFound, "", "File not found"},
	problemMode:         {http.StatusBadRequest, "", "Operation not allowed in %s mode"},
	problemTooLarge:     {http.StatusRequestEntityTooLarge, "", "File too large"},
	problemFull:         {http.StatusInsufficientStorage, "", "Insufficient storage"},
	problemDuplicate:    {http.StatusInternalServerError, "", "File with ID %s already exists"},
	problemInternal:     {http.StatusInternalServerError, "", "Internal server error"},
	problemNoKeys:       {http.StatusServiceUnavailable, "", "Token validation unavailable"},
	problemMethod:       {http.StatusMethodNotAllowed, "", "Method Not Allowed"},
}

// fail answers with a problem in the dialect, and returns the status. detail is the mode
// or the id that some texts of the Python dialect name.
func (s *Storage) fail(w http.ResponseWriter, p problem, detail string) int {
	if s.cfg.Dialect == golang {
		a := goAnswers[p]
		writeError(w, golang, a)
		return a.status
	}
	a := pythonAnswers[p]
	switch p {
	case problemUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case problemNoFile:
		writeJSON(w, a.status, map[string]any{"detail": []fieldError{{Type: "missing", Loc: []string{"body", "file"}, Msg: a.text}}})
		return a.status
	case problemMode:
		a.text = "Operation not allowed in " + detail + " mode"
	case problemDuplicate:
		a.text = "File with ID " + detail + " already exists"
	}
	writeError(w, python, a)
	return a.status
}

// writeError writes the error object of a dialect.
func writeError(w http.ResponseWriter, d Dialect, a answer) {
	if d == golang {
		writeJSON(w, a.status, map[string]any{"error": map[string]string{"code": a.code, "message": a.text}})
		return
	}
	writeJSON(w, a.status, map[string]string{"detail": a.text})
}

// uploaded is the body of the 201 to an upload. The checksum is a parameter because the
// fault "checksum" answers a wrong one.
func (d Dialect) uploaded(m *metadata, checksum string) map[string]any {
	if d == golang {
		body := d.described(m)
		body["checksum"] = checksum
		return body
	}
	return map[string]any{
		"file_id": m.ID, "original_filename": m.Name, "file_size": m.Size, "checksum": checksum, "message": "File uploaded successfully",
	}
}

// described is the body of a metadata answer.
func (d Dialect) described(m *metadata) map[string]any {
	body := map[string]any{
		"file_id": m.ID, "original_filename": m.Name, "checksum": m.SHA256, "content_type": m.ContentType,
		"uploaded_by": m.UploadedBy, "uploaded_at": m.UploadedAt.Format(time.RFC3339Nano),
	}
	if m.Description != "" {
		body["description"] = m.Description
	}
	if d == python {
		body["file_size"] = m.Size
		body["version"] = m.Version
		return body
	}
	body["size"] = m.Size
	body["status"] = "active"
	body["retention_policy"], body["ttl_days"], body["expires_at"] = m.Retention, nil, nil
	if m.TTLDays > 0 {
		body["ttl_days"] = m.TTLDays
		body["expires_at"] = m.UploadedAt.AddDate(0, 0, m.TTLDays).Format(time.RFC3339Nano)
	}
	if len(m.Tags) > 0 {
		body["tags"] = m.Tags
	}
	return body
}
