package rig

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor starts the components in order, starts again what ends by
// itself, and answers on the index's socket. A cluster lives exactly as long
// as its supervisor: a node's is the first process of a pid namespace, with
// which the kernel kills everything in it; a control plane's children ask the
// kernel to be killed with their parent. So `down` is one kill, at any moment.

const (
	supervisorLog = "logs/supervisor.log"
	supervisorPID = "supervisor.pid"
	childPIDs     = "components"

	// File descriptors the supervisor inherits.
	indexFD = 3
	lockFD  = 4 // the lock on supervisor.lock: held for as long as we live
)

type child struct {
	component
	state    string
	process  *os.Process
	restarts int
	started  time.Time
	ready    bool
	wanted   bool // false after `cluster stop`
}

type supervisor struct {
	c        Config
	children []*child
	exits    chan exit
	ready    chan *child
	retry    chan *child
	control  chan controlCall
}

type exit struct {
	pid    int
	status syscall.WaitStatus
}

type controlCall struct {
	request
	answer chan reply
}

// SupervisorMain is the program SupervisorName; its argument is the state
// directory.
func SupervisorMain() {
	if len(os.Args) != 2 {
		log.Fatal("usage: " + SupervisorName + " STATE-DIRECTORY (`cluster up` starts it)")
	}
	log.Fatal(supervise(os.Args[1]))
}

func supervise(dir string) error {
	// PR_SET_PDEATHSIG is tied to the thread that forks, so all children come
	// from this one, which lives as long as the process.
	runtime.LockOSThread()
	unix.CloseOnExec(indexFD)
	unix.CloseOnExec(lockFD)
	self, err := thisProcess()
	if err != nil {
		return err
	}
	// Before anything that would need cleaning.
	if err := self.save(filepath.Join(dir, supervisorPID)); err != nil {
		return err
	}
	c, err := loadConfig(dir)
	if err != nil {
		return err
	}
	listener, err := net.FileListener(os.NewFile(indexFD, "index"))
	if err != nil {
		return fmt.Errorf("inherit the index's socket: %w", err)
	}
	if c.Mode == Node {
		if err := enterNode(c); err != nil {
			return err
		}
	}
	s := &supervisor{c: c, exits: make(chan exit), ready: make(chan *child), retry: make(chan *child), control: make(chan controlCall)}
	for _, component := range components(c) {
		s.children = append(s.children, &child{component: component, state: "waiting", wanted: true})
	}
	go s.serve(listener)
	go s.reap()
	return s.run()
}

func (s *supervisor) run() error {
	s.startWaiting()
	for {
		select {
		case e := <-s.exits:
			s.exited(e)
		case ch := <-s.ready:
			ch.ready = true
			log.Printf("%s answers", ch.name)
			s.startWaiting()
		case ch := <-s.retry:
			if ch.wanted && ch.process == nil {
				s.start(ch)
			}
		case call := <-s.control:
			call.answer <- s.handle(call.request)
		}
	}
}

func (s *supervisor) child(name string) *child {
	for _, ch := range s.children {
		if ch.name == name {
			return ch
		}
	}
	return nil
}

// startWaiting starts whatever no longer has to wait for another.
func (s *supervisor) startWaiting() {
	for _, ch := range s.children {
		if ch.state != "waiting" || !ch.wanted {
			continue
		}
		if before := s.child(ch.after); before == nil || before.ready {
			s.start(ch)
		}
	}
}

func (s *supervisor) start(ch *child) {
	process, err := s.spawn(ch)
	if err != nil {
		ch.state = "failed"
		log.Printf("start %s: %v", ch.name, err)
		s.startLater(ch)
		return
	}
	log.Printf("started %s, pid %d", ch.name, process.Pid)
	ch.process, ch.state, ch.started = process, "running", time.Now()
	if s.c.Mode == ControlPlane {
		// `down` waits for these: they end a moment after the supervisor.
		if p, err := processOf(process.Pid); err == nil {
			if err := p.save(s.c.path(childPIDs, ch.name+".pid")); err != nil {
				log.Print(err)
			}
		}
	}
	if ch.answers == nil || ch.ready {
		ch.ready = true
		return
	}
	go func() {
		for !ch.answers(context.Background()) {
			time.Sleep(50 * time.Millisecond)
		}
		s.ready <- ch
	}()
}

func (s *supervisor) spawn(ch *child) (*os.Process, error) {
	path, err := programLink(s.c.inside(), ch.name)
	if ch.path != "" {
		path, err = exec.LookPath(ch.path)
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", ch.name, err)
	}
	logs := s.c.insidePath("logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, fmt.Errorf("make the log directory: %w", err)
	}
	out, err := os.OpenFile(filepath.Join(logs, ch.name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open the log: %w", err)
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", os.DevNull, err)
	}
	defer null.Close()
	process, err := os.StartProcess(path, append([]string{ch.name}, ch.args...), &os.ProcAttr{
		Dir: "/", Env: s.environment(), Files: []*os.File{null, out, out},
		Sys: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	return process, nil
}

// programLink makes a link to this very program under a component's name, which
// then shows in lists of processes. /proc/self/exe is still there when the
// program was rebuilt or deleted meanwhile.
func programLink(dir, name string) (string, error) {
	link := filepath.Join(dir, "programs", name)
	if err := os.MkdirAll(filepath.Dir(link), 0o755); err != nil {
		return "", fmt.Errorf("make the directory of programs: %w", err)
	}
	if err := os.Symlink("/proc/self/exe", link); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("link %s: %w", name, err)
	}
	return link, nil
}

// environment passes on what a person set, except for what would point a
// component at another cluster or, by way of a proxy, off this machine.
func (s *supervisor) environment() []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	if s.c.Mode == Node {
		env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/"}
	}
	for _, key := range []string{"TMPDIR", "TZ", "GOMAXPROCS", "GOGC", "GOMEMLIMIT"} {
		if value, ok := os.LookupEnv(key); ok && (key != "TMPDIR" || s.c.Mode != Node) {
			env = append(env, key+"="+value)
		}
	}
	return env
}

// reap collects every child: as the first process of a pid namespace we also
// inherit the orphans in it.
func (s *supervisor) reap() {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case err == syscall.ECHILD:
			time.Sleep(50 * time.Millisecond)
		case err == nil && pid > 0:
			s.exits <- exit{pid, status}
		}
	}
}

func (s *supervisor) exited(e exit) {
	for _, ch := range s.children {
		if ch.process == nil || ch.process.Pid != e.pid {
			continue
		}
		_ = ch.process.Release()
		ch.process = nil
		if !ch.wanted {
			ch.state = "stopped"
			log.Printf("%s stopped", ch.name)
			return
		}
		ch.state = "failed"
		log.Printf("%s ended: exit code %d, signal %d", ch.name, e.status.ExitStatus(), e.status.Signal())
		s.startLater(ch)
		return
	}
}

func (s *supervisor) startLater(ch *child) {
	pause := min(500*time.Millisecond<<min(ch.restarts, 4), 5*time.Second)
	if time.Since(ch.started) > time.Minute {
		pause = 0
	}
	ch.restarts++
	time.AfterFunc(pause, func() { s.retry <- ch })
}

func (s *supervisor) handle(req request) reply {
	answer := reply{Name: s.c.Name, Dir: s.c.Dir}
	if req.Do != "status" {
		ch := s.child(req.Component)
		switch {
		case ch == nil:
			answer.Error = fmt.Sprintf("no component %q in this cluster", req.Component)
		case req.Do == "stop":
			ch.wanted = false
			if ch.process != nil {
				// SIGKILL: what a test wants to see is the crash.
				if err := ch.process.Kill(); err != nil {
					answer.Error = fmt.Sprintf("stop %s: %v", ch.name, err)
				}
			} else {
				ch.state = "stopped"
			}
		case req.Do == "start":
			ch.wanted = true
			if ch.process == nil {
				s.start(ch)
			}
		default:
			answer.Error = fmt.Sprintf("unknown request %q", req.Do)
		}
	}
	for _, ch := range s.children {
		answer.Components = append(answer.Components, ComponentStatus{Name: ch.name, State: ch.state, Restarts: ch.restarts})
	}
	return answer
}

func (s *supervisor) serve(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Printf("accept: %v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go func() {
			defer conn.Close()
			if unixConn, ok := conn.(*net.UnixConn); !ok || !mayAsk(unixConn) {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
			var req request
			if json.NewDecoder(conn).Decode(&req) != nil {
				return
			}
			call := controlCall{req, make(chan reply, 1)}
			s.control <- call
			_ = json.NewEncoder(conn).Encode(<-call.answer)
		}()
	}
}
