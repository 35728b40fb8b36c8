package format

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// The decoder of package yaml compares each key of a mapping with each other key, which
// takes seconds for a hundred thousand keys. Therefore only its parser is used: its nodes
// repeat no alias, and only the nodes of known fields are looked at.

// shapeError returns the error for a node of another kind than its field has.
func shapeError(n *yaml.Node) error { return fmt.Errorf("line %d has another shape", n.Line) }

// fromYAML fills o with the known fields of a mapping. Merge keys ("<<") are not followed.
// It returns the first error, and fills the other fields all the same.
func (m *manifest) fromYAML(n *yaml.Node, o *kubeObject[*yaml.Node]) (err error) {
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		switch key {
		case "kind":
			return m.scalar(v, &o.Kind)
		case "metadata":
			return m.texts(v, map[string]*string{"name": &o.Metadata.Name, "namespace": &o.Metadata.Namespace})
		case "data":
			return m.entriesOf(v, &o.Data)
		case "stringData":
			return m.entriesOf(v, &o.StringData)
		case "binaryData":
			return m.entriesOf(v, &o.BinaryData)
		case "clusters":
			return m.clusters(v, &o.Clusters)
		case "users":
			return m.users(v, &o.Users)
		case "items":
			o.Items = resolved(v).Content
		default:
			m.bundlesFromYAML(key, v, o)
		}
		return nil
	})
}

// resolved returns the node that an alias stands for, and any other node as it is.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias // the parser never lets it be an alias itself
	}
	return n
}

// eachPair visits all pairs of a mapping, also after an error, and returns the first error.
// The visits count as steps, see maxSteps.
func (m *manifest) eachPair(n *yaml.Node, visit func(key string, v *yaml.Node) error) (err error) {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		return shapeError(n)
	}
	if m.steps += len(n.Content); m.steps > maxSteps {
		return errFullManifest
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Kind != yaml.ScalarNode { // such as "{{" of a template
			err = firstError(err, shapeError(k))
			continue
		}
		err = firstError(err, visit(n.Content[i].Value, n.Content[i+1]))
	}
	return err
}

// scalar stores the text of a scalar. null leaves the field as it is.
func (m *manifest) scalar(n *yaml.Node, into *string) error {
	n = resolved(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		return shapeError(n)
	case n.Tag != "!!null":
		*into = n.Value
	}
	return nil
}

// texts fills the fields that are named by the keys of into.
func (m *manifest) texts(n *yaml.Node, into map[string]*string) error {
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		if to := into[key]; to != nil {
			return m.scalar(v, to)
		}
		return nil
	})
}

// entriesOf fills the entries of a Secret or a ConfigMap. An entry that is no scalar is left
// out, and is the error.
func (m *manifest) entriesOf(n *yaml.Node, into *map[string]string) error {
	if n = resolved(n); n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // "data:" without a value
	}
	*into = map[string]string{}
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		var value string
		err := m.scalar(v, &value)
		if err == nil {
			(*into)[key] = value
		}
		return err
	})
}

// firstError returns a if it is an error, and b otherwise.
func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
