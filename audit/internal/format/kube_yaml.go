package format

import (
	"fmt"

	"go.yaml.in/yaml/v3"
)

// The decoder of YAML compares every key of a mapping with every other one, which
// takes seconds for a hundred thousand of them. So only its parser is used, whose
// nodes repeat nothing, and of those only what is asked for is looked at.

func shapeError(n *yaml.Node) error { return fmt.Errorf("line %d has another shape", n.Line) }

// fromYAML fills o with what is in a mapping. Merge keys are not followed.
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

// resolved is what an alias stands for.
func resolved(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.AliasNode {
		return n.Alias // which is none itself
	}
	return n
}

// eachPair visits the pairs of a mapping, all of them, and returns the first error.
func (m *manifest) eachPair(n *yaml.Node, visit func(key string, v *yaml.Node) error) (err error) {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		return shapeError(n)
	}
	if m.steps += len(n.Content); m.steps > maxSteps {
		return errFullManifest
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Kind != yaml.ScalarNode { // {{ of a template, for one
			err = firstError(err, shapeError(k))
			continue
		}
		err = firstError(err, visit(n.Content[i].Value, n.Content[i+1]))
	}
	return err
}

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

// texts fills in the keys of a mapping that are asked for.
func (m *manifest) texts(n *yaml.Node, into map[string]*string) error {
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		if to := into[key]; to != nil {
			return m.scalar(v, to)
		}
		return nil
	})
}

func (m *manifest) entriesOf(n *yaml.Node, into *map[string]string) error {
	if n = resolved(n); n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil // "data:" and nothing there
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

func (m *manifest) clusters(list *yaml.Node, into *[]kubeConfigCluster) (err error) {
	for _, n := range resolved(list).Content {
		var c kubeConfigCluster
		err = firstError(err, m.named(n, &c.Name, "cluster", map[string]*string{
			"certificate-authority": &c.Cluster.File, "certificate-authority-data": &c.Cluster.Data,
		}))
		*into = append(*into, c)
		if m.full() {
			break
		}
	}
	return err
}

func (m *manifest) users(list *yaml.Node, into *[]kubeConfigUser) (err error) {
	for _, n := range resolved(list).Content {
		var u kubeConfigUser
		err = firstError(err, m.named(n, &u.Name, "user", map[string]*string{
			"client-certificate": &u.User.CertFile, "client-certificate-data": &u.User.CertData,
			"client-key": &u.User.KeyFile, "client-key-data": &u.User.KeyData,
		}))
		*into = append(*into, u)
		if m.full() {
			break
		}
	}
	return err
}

// named reads one item of a kubeconfig: its name, and what is under its kind.
func (m *manifest) named(n *yaml.Node, name *string, kind string, into map[string]*string) error {
	return m.eachPair(n, func(key string, v *yaml.Node) error {
		switch key {
		case "name":
			return m.scalar(v, name)
		case kind:
			return m.texts(v, into)
		}
		return nil
	})
}

// firstError keeps the first of many errors: a thousand of them say the same.
func firstError(a, b error) error {
	if a != nil {
		return a
	}
	return b
}
