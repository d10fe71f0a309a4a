// Command testapp is what the tests run in pods: a static program for an image
// with nothing else in it.
//
//	program serve          answers HTTP on :8080 with its host name and the caller's address
//	program get URL        prints what an HTTP GET gives
//	program lookup NAME    prints the addresses of a name
//	program keep FILE TEXT appends to a file and prints it
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(args []string) error {
	verb := strings.Join(args[:min(1, len(args))], "")
	switch {
	case verb == "" || verb == "serve":
		return serve()
	case verb == "get" && len(args) == 2:
		client := http.Client{Timeout: 5 * time.Second}
		response, err := client.Get(args[1])
		if err != nil {
			return fmt.Errorf("get: %w", err)
		}
		defer response.Body.Close()
		_, err = io.Copy(os.Stdout, response.Body)
		return err
	case verb == "lookup" && len(args) == 2:
		addresses, err := net.LookupHost(args[1])
		if err != nil {
			return fmt.Errorf("lookup: %w", err)
		}
		fmt.Println(strings.Join(addresses, " "))
		return nil
	case verb == "keep" && len(args) == 3:
		file, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o644)
		if err != nil {
			return fmt.Errorf("keep: %w", err)
		}
		defer file.Close()
		if _, err := fmt.Fprintln(file, args[2]); err != nil {
			return fmt.Errorf("keep: %w", err)
		}
		data, err := os.ReadFile(args[1])
		fmt.Print(string(data))
		return err
	}
	return fmt.Errorf("unknown arguments %q", args)
}

func serve() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	name, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("read the host name: %w", err)
	}
	server := &http.Server{Addr: ":8080", Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprintf(w, "%s called by %s\n", name, host)
	})}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	fmt.Println("serving")
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
