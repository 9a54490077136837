package interop_test

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// buildProgram builds a program of the folder examples, and returns the file.
func buildProgram(t testing.TB, name string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if out, err := exec.Command("go", "build", "-o", file, "../examples/"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// A localServer is a running examples/local.
type localServer struct {
	dir                 string // where it runs; its files are in apns-local
	page, http2, binary string
	pid                 int
}

// startLocal starts examples/local on free ports.
func startLocal(t testing.TB, program string, args ...string) *localServer {
	t.Helper()
	s := &localServer{dir: t.TempDir()}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, program, append([]string{"-http2", "0", "-push", "0", "-feedback", "0", "-page-addr", "127.0.0.1:0"}, args...)...)
	cmd.Dir, cmd.Stderr = s.dir, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	read := make(chan struct{})
	ready := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			line := lines.Text()
			for name, value := range map[string]*string{"HTTP/2 provider API": &s.http2, "binary gateway": &s.binary, "web page": &s.page} {
				if rest, ok := strings.CutPrefix(line, name); ok && *value == "" {
					*value = strings.TrimSuffix(strings.TrimSpace(rest), "/")
				}
			}
			if strings.HasSuffix(line, "Ctrl-C ends it.") {
				close(ready)
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-read
		cmd.Wait()
	})
	select {
	case <-ready:
	case <-read:
		t.Fatal("local ended at once")
	case <-time.After(timeout):
		t.Fatal("local does not start")
	}
	return s
}

// The test in docs/local.md passes.
func TestDocumentedControlAPI(t *testing.T) {
	node := findProgram(t, "node")
	text, err := os.ReadFile("../docs/local.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("(?ms)^```js\n(.*?)^```$").FindSubmatch(text)
	if code == nil {
		t.Fatal("docs/local.md has no test")
	}
	s := startLocal(t, buildProgram(t, "local"))
	dir := t.TempDir() // another one than that of local
	if err := os.WriteFile(filepath.Join(dir, "local.test.mjs"), code[1], 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "--test", "local.test.mjs")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "APNS_LOCAL="+s.page)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "# pass 3\n") && !strings.Contains(string(out), "ℹ pass 3\n") {
		t.Errorf("%v: %v\n%s", cmd, err, out)
	}
}

// browserSettings returns what page.js needs: Chromium, a profile folder, and clients.
func browserSettings(t testing.TB) (node string, settings map[string]string) {
	t.Helper()
	chromium := findProgram(t, "chromium")
	node = needNode(t, "playwright-core")
	needNode(t, "apns2")
	curl := findProgram(t, "curl")
	return node, map[string]string{
		"chromium": chromium, "profile": t.TempDir(), "path": filepath.Dir(curl) + string(filepath.ListSeparator) + os.Getenv("PATH"),
	}
}

// runPage runs a script that drives a browser. It prints a line for each check: "ok name", or
// "FAIL name" with the error after it. The last line is "end".
func runPage(t *testing.T, script, node string, settings map[string]string) {
	t.Helper()
	argument, err := json.Marshal(settings)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, script, string(argument))
	cmd.Stderr = os.Stderr
	b, err := cmd.Output()
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	for _, line := range lines {
		if name, ok := strings.CutPrefix(line, "ok "); ok {
			t.Run(name, func(*testing.T) {})
		} else if text, ok := strings.CutPrefix(line, "FAIL "); ok {
			name, why, _ := strings.Cut(text, ": ")
			t.Run(name, func(t *testing.T) { t.Error(strings.ReplaceAll(why, `\n`, "\n")) })
		} else {
			t.Log(line)
		}
	}
	if err != nil || lines[len(lines)-1] != "end" {
		t.Errorf("%s: %v", script, err)
	}
}

// The page of examples/local in a browser.
func TestPage(t *testing.T) {
	node, settings := browserSettings(t)
	settings["local"], settings["push"] = buildProgram(t, "local"), buildProgram(t, "push")
	settings["dir"] = t.TempDir()
	runPage(t, "page.js", node, settings)
}
