package format

import (
	"encoding/base64"

	"go.yaml.in/yaml/v3"
)

// kubeConfigCluster is an entry of a kubeconfig under clusters.
type kubeConfigCluster struct {
	Name    string `json:"name"`
	Cluster struct {
		File string `json:"certificate-authority"`
		Data string `json:"certificate-authority-data"`
	} `json:"cluster"`
}

// kubeConfigUser is an entry of a kubeconfig under users.
type kubeConfigUser struct {
	Name string `json:"name"`
	User struct {
		CertFile string `json:"client-certificate"`
		CertData string `json:"client-certificate-data"`
		KeyFile  string `json:"client-key"`
		KeyData  string `json:"client-key-data"`
	} `json:"user"`
}

// readConfig reads a kubeconfig: the certificates and keys of users and clusters, or the
// names of files that hold them.
func (m *manifest) readConfig(kind string, clusters []kubeConfigCluster, users []kubeConfigUser) {
	if kind != "Config" {
		return
	}
	for _, c := range clusters {
		object := unique(m.names, "clusters/"+c.Name)
		m.dataOrFile(object, "certificate-authority", c.Cluster.File, c.Cluster.Data)
	}
	for _, u := range users {
		object := unique(m.names, "users/"+u.Name)
		m.dataOrFile(object, "client-certificate", u.User.CertFile, u.User.CertData)
		m.dataOrFile(object, "client-key", u.User.KeyFile, u.User.KeyData)
	}
}

// dataOrFile adds the data of a field, or the file that it names. kubectl takes the data if
// both are given.
func (m *manifest) dataOrFile(object, field, file, data string) {
	if !m.reserve(len(data)) {
		return
	}
	content, err := base64.StdEncoding.DecodeString(data)
	switch {
	case err != nil:
		m.add(Part{Err: errBadBase64, In: &Location{Object: object, Entry: field + "-data"}})
	case data != "":
		m.entry(&Location{Object: object, Entry: field + "-data"}, content, true)
	case file != "":
		m.add(Part{In: &Location{Object: object, Entry: field, File: file}})
	}
}

// clusters reads the clusters of a kubeconfig, until a bound is exceeded.
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

// users reads the users of a kubeconfig, until a bound is exceeded.
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

// named reads one item of a kubeconfig: its name, and the fields below the key kind.
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
