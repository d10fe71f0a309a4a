package rig

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

const usage = `cluster is a real single-node Kubernetes for tests and the demo, without Docker.

  cluster up [--control-plane-only] [--index K] [--timeout 3m]
                         bring it up (or wait for it); prints the path of its kubeconfig
  cluster down           end it and remove every trace
  cluster status [--json]
                         addresses and components; exit code 1 unless it is healthy
  cluster kubeconfig     print the path of its kubeconfig
  cluster kubectl ...    kubectl on this cluster
  cluster load-image ARCHIVE...
                         give the node an OCI or Docker archive
  cluster stop COMPONENT, cluster start COMPONENT
                         kill a component (kube-apiserver, etcd, kubelet, ...) and bring it back
  cluster list           all clusters that run on this machine

Which cluster: --name N (default "default"), or --state DIR for a state
directory other than ${XDG_CACHE_HOME:-~/.cache}/spillway/cluster/N. Before
"kubectl", in front of it. CLUSTER_NAME and CLUSTER_STATE are their defaults.
`

// Main is the tool's main function; kubectl is what `cluster kubectl` calls.
func Main(args []string, kubectl func()) int {
	if err := run(args, kubectl); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		if err.Error() != "" {
			fmt.Fprintln(os.Stderr, "cluster:", err)
		}
		var bad usageError
		if errors.As(err, &bad) {
			return 2
		}
		return 1
	}
	return 0
}

type usageError struct{ error }

type command struct {
	flags   *flag.FlagSet
	name    string
	state   string
	options Options
	only    bool
	json    bool
}

func newCommand() *command {
	cmd := &command{flags: flag.NewFlagSet("cluster", flag.ContinueOnError)}
	name := os.Getenv("CLUSTER_NAME")
	if name == "" {
		name = "default"
	}
	cmd.flags.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	cmd.flags.StringVar(&cmd.name, "name", name, "")
	cmd.flags.StringVar(&cmd.state, "state", os.Getenv("CLUSTER_STATE"), "")
	return cmd
}

func run(args []string, kubectl func()) error {
	cmd := newCommand()
	if err := cmd.parse(args); err != nil {
		return err
	}
	if cmd.flags.NArg() == 0 {
		fmt.Fprint(os.Stderr, usage)
		return usageError{errors.New("say what to do")}
	}
	verb, rest := cmd.flags.Arg(0), cmd.flags.Args()[1:]
	if verb == "kubectl" {
		return cmd.kubectl(rest, kubectl)
	}
	switch verb {
	case "up":
		cmd.flags.IntVar(&cmd.options.Index, "index", -1, "")
		cmd.flags.BoolVar(&cmd.only, "control-plane-only", false, "")
		cmd.flags.DurationVar(&cmd.options.Limit, "timeout", 3*time.Minute, "")
	case "status":
		cmd.flags.BoolVar(&cmd.json, "json", false, "")
	}
	if err := cmd.parse(rest); err != nil {
		return err
	}
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	arguments := cmd.flags.Args()
	wants := map[string][2]int{"up": {0, 0}, "down": {0, 0}, "status": {0, 0}, "kubeconfig": {0, 0}, "list": {0, 0},
		"load-image": {1, 100}, "stop": {1, 1}, "start": {1, 1}}
	count, ok := wants[verb]
	if !ok {
		return usageError{fmt.Errorf("unknown command %q; see `cluster --help`", verb)}
	}
	if len(arguments) < count[0] || len(arguments) > count[1] {
		return usageError{fmt.Errorf("%s: wrong number of arguments; see `cluster --help`", verb)}
	}
	switch verb {
	case "up":
		return cmd.up(dir)
	case "down":
		return Down(dir, progress())
	case "status":
		return cmd.status(dir)
	case "kubeconfig":
		c, err := loadConfig(dir)
		if err != nil {
			return err
		}
		fmt.Println(c.Kubeconfig())
		return nil
	case "load-image":
		return loadImages(dir, arguments)
	case "list":
		return list()
	default:
		c, err := loadConfig(dir)
		if err != nil {
			return err
		}
		_, err = ask(c.Index, request{Do: verb, Component: arguments[0]})
		return err
	}
}

func (cmd *command) parse(args []string) error {
	if err := cmd.flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{errors.New("")} // flag has printed it
	}
	return nil
}

func (cmd *command) dir() (string, error) {
	if err := (Config{Name: cmd.name}).Validate(); err != nil {
		return "", usageError{err}
	}
	if cmd.state == "" {
		return DefaultStateDir(cmd.name)
	}
	dir, err := filepath.Abs(cmd.state)
	if err != nil {
		return "", fmt.Errorf("--state: %w", err)
	}
	return dir, nil
}

// progress prints lines with the time since the start.
func progress() func(string, ...any) {
	begin := time.Now()
	return func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, "%6.1fs  %s\n", time.Since(begin).Seconds(), fmt.Sprintf(format, args...))
	}
}

func (cmd *command) up(dir string) error {
	cmd.options.Name, cmd.options.Dir, cmd.options.Mode = cmd.name, dir, Node
	if cmd.only {
		cmd.options.Mode = ControlPlane
	}
	if index := cmd.options.Index; index < -1 || index > MaxIndex {
		return usageError{Config{Name: cmd.name, Index: index}.Validate()}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	c, err := Up(ctx, cmd.options, progress())
	if err != nil {
		return err
	}
	fmt.Println(c.Kubeconfig())
	return nil
}

func (cmd *command) status(dir string) error {
	s, err := StatusOf(context.Background(), dir)
	if err != nil {
		return err
	}
	if cmd.json {
		encoder := json.NewEncoder(os.Stdout)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(s); err != nil {
			return fmt.Errorf("print: %w", err)
		}
	} else {
		s.print()
	}
	if !s.Healthy {
		return errors.New("not healthy; `cluster up` brings it up")
	}
	return nil
}

func (s Status) print() {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"cluster", fmt.Sprintf("%s (%s, index %d)", s.Name, s.Mode, s.Index)},
		{"healthy", fmt.Sprint(s.Healthy)},
		{"kubeconfig", s.Kubeconfig},
		{"API server", s.Server},
		{"the host, for pods", strings.TrimSpace(s.HostAddress + " " + s.HostName)},
		{"pods", s.PodCIDR},
		{"Services", s.ServiceCIDR},
		{"DNS", s.DNSAddress},
		{"state", s.StateDir},
	} {
		if line[1] != "" {
			fmt.Fprintf(w, "%s\t%s\n", line[0], line[1])
		}
	}
	for _, component := range s.Components {
		fmt.Fprintf(w, "%s\t%s, %d restarts\n", component.Name, component.State, component.Restarts)
	}
	w.Flush()
}

func (cmd *command) kubectl(args []string, kubectl func()) error {
	dir, err := cmd.dir()
	if err != nil {
		return err
	}
	c, err := loadConfig(dir)
	if err != nil {
		return err
	}
	if err := os.Setenv("KUBECONFIG", c.Kubeconfig()); err != nil {
		return fmt.Errorf("set KUBECONFIG: %w", err)
	}
	os.Args = append([]string{"kubectl"}, args...)
	kubectl()
	return nil
}

func loadImages(dir string, archives []string) error {
	c, err := loadConfig(dir)
	if err != nil {
		return err
	}
	if c.Mode != Node {
		return fmt.Errorf("cluster %q has no node to load images into: run `cluster up` without --control-plane-only", c.Name)
	}
	supervisor, alive, err := supervisorOf(dir)
	if err != nil {
		return err
	}
	if !alive {
		return errNoCluster
	}
	for _, archive := range archives {
		out, err := loadImage(supervisor, archive)
		if err != nil {
			return err
		}
		fmt.Fprint(os.Stderr, out)
	}
	return nil
}

func list() error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "INDEX\tNAME\tSTATE DIRECTORY")
	for index := 0; index <= MaxIndex; index++ {
		if answer, err := ask(index, request{Do: "status"}); err == nil {
			fmt.Fprintf(w, "%d\t%s\t%s\n", index, answer.Name, answer.Dir)
		}
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("print: %w", err)
	}
	return nil
}
