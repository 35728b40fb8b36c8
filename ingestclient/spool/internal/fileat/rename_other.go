//go:build !linux

package fileat

import "errors"

func (Entry) renameNew(Entry) error { return errors.ErrUnsupported }
