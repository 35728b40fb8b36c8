package audit

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
)

const (
	// maxReferences bounds the files that one file refers to.
	maxReferences = 256
	// maxReferenced is the size of one, in bytes.
	maxReferenced = 256 << 10
)

var (
	errManyReferences = fmt.Errorf("it refers to more than %d files; the rest was not read", maxReferences)
	errReferenced     = fmt.Errorf("it is larger than %d KiB, too much for a file that another one refers to", maxReferenced>>10)
)

// each makes subjects of the parts of a file, object by object.
func (w *walk) each(f *file, at place, yield func(Subject)) {
	if objects := f.objects(); objects != nil {
		for _, o := range objects {
			w.each(o, place{bundle: o.bundle(w.bundle, at.bundle)}, yield)
		}
		return
	}
	chain, key, several := f.authorities(), holderFor(f, at.keys), f.severalIn()
	orders := map[string][]*Certificate{}
	for _, p := range f.parts {
		w.awake(&p)
		s := Subject{Kind: kindFile, Place: f.path + p.in.suffix(), Err: p.err, Cert: p.cert, doc: p.doc}
		if several(p) {
			s.Block = p.block
		}
		switch {
		case p.err != nil:
		case p.doc != nil:
			s.Chain, s.Bundle = chain, at.bundle
		case p.cert == nil:
			continue // a key is judged with its certificate
		case !p.cert.isCA:
			entry := p.in.suffix()
			if _, known := orders[entry]; !known {
				orders[entry] = w.order(f, entry)
			}
			s.Chain, s.Bundle, s.Key, s.order = chain, at.bundle, key.key(p.cert), orders[entry]
		}
		yield(s)
	}
}

// suffix is what a part adds to the place of its file or object.
func (in *within) suffix() string {
	if in == nil || in.entry == "" {
		return ""
	}
	return ":" + in.entry
}

// objects takes a file with several objects apart: the certificates of one are no
// chain of another, and its keys do not belong there. nil for any other file.
func (f *file) objects() (out []*file) {
	at := map[string]*file{}
	for _, p := range f.parts {
		if p.in == nil || p.in.object == "" {
			return nil
		}
		o := at[p.in.object]
		if o == nil {
			o = &file{path: f.path + "#" + p.in.object, mode: f.mode}
			at[p.in.object] = o
			out = append(out, o)
		}
		// What was taken apart is not taken apart again.
		in := *p.in
		in.object, p.in = "", &in
		o.parts = append(o.parts, p)
	}
	return out
}

// bundle are the roots in an object under the names that they have in directories,
// unless some were given; without any, those of the directory.
func (f *file) bundle(given, nearest []*Certificate) []*Certificate {
	if given != nil {
		return given
	}
	for _, name := range bundleNames {
		var own []*Certificate
		for _, p := range f.parts {
			if p.in.entry == name && p.cert != nil && p.cert.isCA {
				own = append(own, p.cert)
			}
		}
		if own != nil {
			return own
		}
	}
	return nearest
}

// severalIn tells of a part whether there are others in the same entry of the file.
func (f *file) severalIn() func(parsed) bool {
	if !slices.ContainsFunc(f.parts, func(p parsed) bool { return p.in != nil && p.in.entry != "" }) {
		return func(parsed) bool { return len(f.parts) > 1 }
	}
	n := map[string]int{}
	for _, p := range f.parts {
		n[p.in.suffix()]++
	}
	return func(p parsed) bool { return n[p.in.suffix()] > 1 }
}

// follow puts what is in the files that f refers to in the place of the references.
func (o *opening) follow(f *file) {
	if f == nil || !slices.ContainsFunc(f.parts, func(p parsed) bool { return p.in != nil && p.in.file != "" }) {
		return
	}
	var parts []parsed
	known := map[string][]parsed{}
	for _, p := range f.parts {
		if p.in == nil || p.in.file == "" {
			parts = append(parts, p)
			continue
		}
		path := p.in.file
		if !filepath.IsAbs(path) {
			path = filepath.Join(filepath.Dir(f.path), path)
		}
		there, read := known[path]
		switch {
		case !read && len(known) == maxReferences:
			p.err = errManyReferences
			f.parts = append(parts, p)
			return
		case !read:
			there = o.referenced(path)
			known[path] = there
		}
		for _, q := range there {
			in := *p.in
			if in.file = ""; q.in != nil {
				in.mode = q.in.mode
			}
			q.in = &in
			parts = append(parts, q)
		}
	}
	f.parts = parts
}

// referenced reads a file that another one names. What that refers to in turn is not read.
func (o *opening) referenced(path string) []parsed {
	f := o.readAlone(maxReferenced, path, true)
	if f.later != nil {
		return []parsed{{err: errReferenced}}
	}
	for _, p := range f.parts {
		if p.in != nil && p.in.object != "" {
			return []parsed{{err: errNeither}}
		}
	}
	if len(f.parts) == 0 {
		return []parsed{{err: errNoCert}}
	}
	for i := range f.parts {
		f.parts[i].in = &within{mode: f.mode}
	}
	return f.parts
}

// held is how a file has its keys.
type held struct {
	by     fs.FileMode // permissions of the file that they are in
	locked bool        // behind a password
	others bool        // among certificates that belong to others, as a store has them
}

func (f *file) held() held {
	h, leaves := held{by: f.mode}, 0
	for _, p := range f.parts {
		if p.cert != nil && !p.cert.isCA {
			leaves++
		}
		if p.in == nil {
			continue
		}
		h.locked, h.others = h.locked || p.in.locked, h.others || p.in.loose
		if p.isKey && p.in.mode != 0 {
			h.by = p.in.mode
		}
	}
	h.others = h.others && leaves > 1
	return h
}
