package rig

import (
	"context"
	"time"
)

// Status is what `status --json` prints.
type Status struct {
	Name       string `json:"name"`
	Mode       Mode   `json:"mode"`
	Index      int    `json:"index"`
	StateDir   string `json:"stateDir"`
	Healthy    bool   `json:"healthy"`
	Kubeconfig string `json:"kubeconfig"`
	// Server is the API server's URL.
	Server string `json:"server"`
	// HostAddress is where pods reach servers on the host; HostName is its name
	// inside the cluster.
	HostAddress string `json:"hostAddress"`
	HostName    string `json:"hostName,omitempty"`
	NodeName    string `json:"nodeName,omitempty"`
	NodeAddress string `json:"nodeAddress,omitempty"`
	PodCIDR     string `json:"podCIDR,omitempty"`
	ServiceCIDR string `json:"serviceCIDR"`
	// DNSAddress answers for the cluster's names, on the host too.
	DNSAddress string            `json:"dnsAddress,omitempty"`
	Components []ComponentStatus `json:"components"`
}

// StatusOf looks at a cluster; errNoCluster when there is none.
func StatusOf(ctx context.Context, dir string) (Status, error) {
	c, err := loadConfig(dir)
	if err != nil {
		return Status{}, err
	}
	s := Status{
		Name: c.Name, Mode: c.Mode, Index: c.Index, StateDir: c.Dir, Kubeconfig: c.Kubeconfig(), Server: c.Server(),
		HostAddress: c.HostAddress(), ServiceCIDR: c.ServiceCIDR(), Components: []ComponentStatus{},
	}
	if c.Mode == Node {
		s.HostName, s.NodeName, s.NodeAddress = HostName, c.nodeName(), c.NodeAddress()
		s.PodCIDR, s.DNSAddress = c.PodCIDR(), c.DNSAddress()
	}
	if _, alive, err := supervisorOf(dir); err != nil || !alive {
		return s, err
	}
	answer, err := ask(c.Index, request{Do: "status"})
	if err != nil {
		return s, err
	}
	s.Components, s.Healthy = answer.Components, true
	for _, component := range s.Components {
		s.Healthy = s.Healthy && component.State == "running"
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s.Healthy = s.Healthy && httpsAnswers(c.Server()+"/readyz", c.path("pki", "ca.crt"))(ctx)
	if s.Healthy && c.Mode == Node {
		client, err := newClient(c)
		if err != nil {
			return s, err
		}
		_, s.Healthy = nodeReady(ctx, client, c)
	}
	return s, nil
}
