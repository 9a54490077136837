package main

import (
	"context"
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"example.com/apns"
	"example.com/apns/apnstest"
)

func readme(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The commands of the README, and its message.
func TestDocumentedCommands(t *testing.T) {
	text := readme(t)
	r := newRig(t, nil)
	certs, dir := r.server.Certificates(), t.TempDir()
	message := regexp.MustCompile(`(?m)^    (\{.*\})$`).FindStringSubmatch(text)
	if message == nil {
		t.Fatal("there is no message, want one")
	}
	var m apns.Message
	if err := json.Unmarshal([]byte(message[1]), &m); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"key.p8": certs.AuthKey, "ca.pem": certs.CA,
		"messages.jsonl": []byte(strings.Replace(message[1], "c0ffee...", "c0ffee", 1) + "\n"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replacer := strings.NewReplacer(
		"cd examples/worker && ", "",
		"go run .", "exec "+os.Args[0],
		"nats://localhost:4222", r.queue.nc.ConnectedUrl(),
		"-p8 AuthKey_ABC123DEFG.p8", "-addr "+r.server.HTTP2Addr+" -ca "+filepath.Join(dir, "ca.pem")+" -p8 "+filepath.Join(dir, "key.p8"),
		"ABC123DEFG", apnstest.KeyID,
		"DEF123GHIJ", apnstest.TeamID,
		"-listen :8080", "-listen "+freeAddr(t),
		"messages.jsonl", filepath.Join(dir, "messages.jsonl"),
	)
	commands := 0
	for _, c := range regexp.MustCompile(`(?m)^    (\(?(?:cd|go) .*)$`).FindAllStringSubmatch(text, -1) {
		if strings.Contains(c[1], "go test") {
			continue // this is part of it
		}
		commands++
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, "sh", "-c", replacer.Replace(c[1]))
		cmd.Env = append(os.Environ(), "WORKER_MAIN=1")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(c[1], "-p8") { // a worker, which ends with a signal
			defer func() {
				cmd.Process.Signal(syscall.SIGTERM)
				if err := cmd.Wait(); err != nil {
					t.Errorf("%s: %v\n%s", c[1], err, out.String())
				}
			}()
			continue
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", c[1], err, out.String())
		}
	}
	if commands != 3 {
		t.Errorf("%d commands were found, want 3: the demo, a worker, and publish", commands)
	}
	r.waitFor("the message of the README is accepted", func() bool { return r.server.Count(apnstest.Accepted) == 1 })
}

// The NATS servers of the compose file are a cluster that stores a message three times, and the
// flags of its workers are right.
func TestDocumentedCluster(t *testing.T) {
	text := readme(t)
	folded := func(key string) (value string) { // of a key whose value is on the lines after it
		t.Helper()
		_, after, found := strings.Cut(text, " "+key+": >-\n")
		if !found {
			t.Fatalf("the compose file has no %s", key)
		}
		indent := after[:len(after)-len(strings.TrimLeft(after, " "))]
		for line := range strings.Lines(after) {
			if !strings.HasPrefix(line, indent) {
				break
			}
			value += line
		}
		return value
	}
	common, own := folded("entrypoint"), regexp.MustCompile(`(?m)^  (n\d): .*command: ([^,]*),`).FindAllStringSubmatch(text, -1)
	var local []string // the names of the services, and where they are here
	for _, service := range own {
		local = append(local, "nats://"+service[1]+":6222", "nats://"+freeAddr(t))
	}
	names := strings.NewReplacer(local...)
	var servers []*server.Server
	for i, service := range own {
		args := strings.Fields(names.Replace(strings.ReplaceAll(common, "nats://0.0.0.0:6222", local[2*i]) + " " + service[2]))[1:]
		options, err := server.ConfigureOptions(flag.NewFlagSet("nats-server", flag.ContinueOnError), args, nil, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if options.StoreDir != "/data" {
			t.Errorf("the store is %s, want /data, which is the volume", options.StoreDir)
		}
		options.Host, options.Port, options.StoreDir, options.NoLog, options.NoSigs = "127.0.0.1", -1, t.TempDir(), true, true
		s, err := server.NewServer(options)
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
		servers = append(servers, s)
	}

	worker := strings.Fields(folded("command"))[1:]
	s, err := parse("", worker)
	if err != nil {
		t.Fatal(err)
	}
	if s.replicas != len(servers) || strings.Count(s.nats, "nats://") != len(servers) {
		t.Errorf("the workers have %d replicas and the servers %s, want %d of each", s.replicas, s.nats, len(servers))
	}
	nc, js, err := connect(servers[0].ClientURL(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		q, err := openQueue(ctx, nc, js, s.queueSettings)
		cancel()
		if err == nil {
			stream, err := q.js.Stream(t.Context(), pushStream)
			if err != nil {
				t.Fatal(err)
			}
			if c := stream.CachedInfo().Cluster; c == nil || len(c.Replicas) != len(servers)-1 {
				t.Errorf("the cluster of the stream is %+v, want a leader and %d more", c, len(servers)-1)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}
