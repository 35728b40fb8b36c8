//go:build !linux

package spool

import "errors"

// watcher exists on Linux only; elsewhere scans find everything.
type watcher struct{}

type event struct {
	path  string
	moved bool
}

func newWatcher() (*watcher, error)    { return nil, errors.ErrUnsupported }
func (*watcher) add(string)            {}
func (*watcher) run()                  {}
func (*watcher) changes() <-chan event { return nil }
func (*watcher) Close()                {}
