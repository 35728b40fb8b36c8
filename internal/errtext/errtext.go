// Package errtext turns an error that may be nil into text, for fields of a status
// and for finding out whether a failure is the one that was reported last.
package errtext

// Of returns the text of err, and "" for nil.
func Of(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
