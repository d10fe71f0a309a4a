package rig

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

// makeReady does what is left to do from outside and waits, step by step,
// until the cluster can be used. Every step may be done again.
func makeReady(ctx context.Context, c Config, supervisor process, say func(string, ...any)) error {
	w := waiter{c, supervisor, say}
	if c.Mode == Node {
		// The node's supervisor waits for this before it does anything else.
		if err := connectHost(c, supervisor); err != nil {
			return err
		}
	}
	if err := startStopped(c); err != nil {
		return err
	}
	if c.Mode == Node {
		if err := w.until(ctx, "containerd", func(ctx context.Context) (string, bool) {
			return "", unixAnswers(fmt.Sprintf("/proc/%d/root%s", supervisor.PID, containerdSocket))(ctx)
		}); err != nil {
			return err
		}
		names, err := ctr(supervisor, "images", "list", "-q", "name=="+pauseImage)
		if err != nil {
			return err
		}
		if strings.TrimSpace(names) == "" {
			if err := loadPauseImage(c, supervisor); err != nil {
				return err
			}
		}
	}
	if err := w.until(ctx, "the API server", func(ctx context.Context) (string, bool) {
		return "", httpsAnswers(c.Server()+"/readyz", c.path("pki", "ca.crt"))(ctx)
	}); err != nil {
		return err
	}
	client, err := newClient(c)
	if err != nil {
		return err
	}
	if c.Mode == Node {
		if err := w.until(ctx, "the cluster's own objects", func(ctx context.Context) (string, bool) {
			err := bootstrap(ctx, client, c)
			return detail(err), err == nil
		}); err != nil {
			return err
		}
		if err := w.until(ctx, "the node", func(ctx context.Context) (string, bool) { return nodeReady(ctx, client, c) }); err != nil {
			return err
		}
		if err := w.until(ctx, "Services and DNS", func(ctx context.Context) (string, bool) { return servicesReady(ctx, c) }); err != nil {
			return err
		}
	}
	return w.until(ctx, "all components", func(ctx context.Context) (string, bool) {
		answer, err := ask(c.Index, request{Do: "status"})
		if err != nil {
			return err.Error(), false
		}
		for _, component := range answer.Components {
			if component.State != "running" {
				return component.Name + " is " + component.State, false
			}
		}
		// The last thing that the controllers bring about.
		_, err = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return "no default service account yet", false
		}
		return detail(err), err == nil
	})
}

// startStopped starts what `cluster stop` had stopped.
func startStopped(c Config) error {
	answer, err := ask(c.Index, request{Do: "status"})
	if err != nil {
		return err
	}
	for _, component := range answer.Components {
		if component.State != "stopped" {
			continue
		}
		if _, err := ask(c.Index, request{Do: "start", Component: component.Name}); err != nil {
			return err
		}
	}
	return nil
}

func newClient(c Config) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	config.QPS, config.Burst, config.Timeout = 100, 100, 10*time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("make a client: %w", err)
	}
	return client, nil
}

func detail(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func nodeReady(ctx context.Context, client kubernetes.Interface, c Config) (string, bool) {
	node, err := client.CoreV1().Nodes().Get(ctx, c.nodeName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "not registered yet", false
	}
	if err != nil {
		return err.Error(), false
	}
	// The scheduler goes by taints, which follow the condition.
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady {
			return "still tainted as not ready", false
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Message, condition.Status == corev1.ConditionTrue
		}
	}
	return "reports no condition yet", false
}

// servicesReady asks the cluster's DNS by its Service's address, from the
// host: the answer takes the route, kube-proxy's rules and CoreDNS.
func servicesReady(ctx context.Context, c Config) (string, bool) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, net.JoinHostPort(c.DNSAddress(), "53"))
	}}
	addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc.cluster.local.")
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return "DNS: " + dns.Err, false // its full text names the host's own server
	}
	if err != nil {
		return err.Error(), false
	}
	if len(addresses) != 1 || addresses[0] != c.apiServiceIP() {
		return fmt.Sprintf("DNS says %v", addresses), false
	}
	if !tcpAnswers(net.JoinHostPort(c.apiServiceIP(), "443"))(ctx) {
		return "the Service kubernetes does not answer", false
	}
	return "", true
}

type waiter struct {
	c          Config
	supervisor process
	say        func(string, ...any)
}

// until polls a condition, tells what it waits for, and gives up when the
// supervisor is gone or the time is over.
func (w waiter) until(ctx context.Context, what string, done func(context.Context) (string, bool)) error {
	for next := time.Now().Add(5 * time.Second); ; {
		why, ok := done(ctx)
		if ok {
			w.say("ready: %s", what)
			return nil
		}
		if why != "" {
			why = ": " + why
		}
		if !w.supervisor.alive() {
			return fmt.Errorf("the cluster ended while waiting for %s: %s", what, tail(w.c.path(supervisorLog)))
		}
		if time.Now().After(next) {
			w.say("waiting for %s%s", what, why)
			next = time.Now().Add(5 * time.Second)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up waiting for %s%s%s", what, why, w.failures())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// failures quotes the logs of components that do not run or keep ending.
func (w waiter) failures() string {
	answer, err := ask(w.c.Index, request{Do: "status"})
	if err != nil {
		return "; " + err.Error()
	}
	var out strings.Builder
	for _, component := range answer.Components {
		if component.State != "running" || component.Restarts > 0 {
			fmt.Fprintf(&out, "\n%s is %s (%d restarts)", component.Name, component.State, component.Restarts)
			if component.State != "waiting" {
				fmt.Fprintf(&out, "; its log ends:\n%s", tail(w.c.path("logs", component.Name+".log")))
			}
		}
	}
	return out.String()
}
