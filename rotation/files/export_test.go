package files

import "github.com/artstore/artstore-pki/rotation"

// ReadSet reads a set once; between comes after the links are resolved.
func ReadSet(set Set, between func()) (rotation.Material, error) {
	p, err := set.resolve()
	if err != nil {
		return rotation.Material{}, err
	}
	paths, failed, err := newResolver().all(p)
	if err != nil {
		return rotation.Material{}, err
	}
	between()
	r, err := load(p, paths, failed)
	if err != nil {
		return rotation.Material{}, err
	}
	return r.material(p)
}
