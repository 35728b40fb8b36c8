//go:build !linux

package spool

import "errors"

func (place) renameNew(place) error { return errors.ErrUnsupported }
