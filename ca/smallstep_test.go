package ca

import (
	"errors"
	"reflect"
	"testing"
)

// The database of smallstep's authority answers every call with an error.
func TestNoDatabaseFailsClosed(t *testing.T) {
	t.Parallel()
	db := reflect.ValueOf(noDatabase{})
	for i := range db.NumMethod() {
		name, method := db.Type().Method(i).Name, db.Method(i)
		var args []reflect.Value
		for j := range method.Type().NumIn() {
			if method.Type().IsVariadic() && j == method.Type().NumIn()-1 {
				break
			}
			args = append(args, reflect.Zero(method.Type().In(j)))
		}
		results := method.Call(args)
		if err, _ := results[len(results)-1].Interface().(error); !errors.Is(err, errNoDatabase) {
			t.Errorf("%s returned %v, want an error", name, err)
		}
	}
}
