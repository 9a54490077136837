package apns_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// setUp makes a module in an empty folder with the commands of the README.
func setUp(t *testing.T, module, here string) {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	commands := regexp.MustCompile("(?m)^    (go (?:mod|get) [^#\n]*)").FindAllStringSubmatch(string(text), -1)
	if len(commands) != 3 {
		t.Fatalf("the README has %d commands that make a module, want 3", len(commands))
	}
	for _, command := range commands {
		args := strings.Fields(command[1])
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "/path/to/this/copy", here)
		}
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir, cmd.Env = module, append(os.Environ(), "GOPROXY=off", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command[1], err, out)
		}
	}
}

// The Go code of the README and of the pages under docs compiles, in a module of its own. A
// block without a package clause is the body of a function with the parameters below. Code
// for another library is checked in interop.
func TestDocumentedCode(t *testing.T) {
	if testing.Short() {
		t.Skip("it runs the go command")
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	module, n := t.TempDir(), 0
	write := func(name, text string) {
		t.Helper()
		name = filepath.Join(module, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	setUp(t, module, here)
	for _, file := range append(files, "README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, block := range goBlock.FindAllStringSubmatch(string(text), -1) {
			code := block[1]
			if strings.Contains(code, "sideshow") {
				continue
			}
			if !strings.HasPrefix(code, "package ") {
				code = asFunction(code)
			}
			write(fmt.Sprintf("%s%d/main.go", strings.TrimSuffix(filepath.Base(file), ".md"), i), code)
			n++
		}
	}
	if n == 0 {
		t.Fatal("no Go code was found")
	}
	vet := exec.Command("go", "vet", "./...")
	vet.Dir = module
	vet.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	if out, err := vet.CombinedOutput(); err != nil {
		t.Errorf("%v: %v\n%s", vet, err, out)
	}
}

// asFunction makes a program of the statements of a document.
func asFunction(code string) string {
	var imports strings.Builder
	for name, path := range map[string]string{
		"apns": "example.com/apns", "apnstest": "example.com/apns/apnstest", "context": "context", "errors": "errors",
		"fmt": "fmt", "iter": "iter", "log": "log", "os": "os", "signal": "os/signal", "slices": "slices", "sql": "database/sql",
		"syscall": "syscall", "testing": "testing", "time": "time", "tls": "crypto/tls", "http": "net/http",
	} {
		if regexp.MustCompile(`\b` + name + `\.`).MatchString(code + parameters) {
			fmt.Fprintf(&imports, "\t%q\n", path)
		}
	}
	return "package main\n\nimport (\n" + imports.String() + ")\n\nfunc main() {}\n\nfunc documented(" + parameters + ") error {\n{\n" + code + "}\n\treturn nil\n}\n"
}

const parameters = "ctx context.Context, client *apns.Client, message *apns.Message, token string, certificate tls.Certificate"

// rowOf returns the columns of the table row that is about a name: the one with the name in its
// first or second column.
func rowOf(text, name string) (columns []string) {
	for line := range strings.Lines(text) {
		columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range columns {
			columns[i] = strings.TrimSpace(columns[i])
		}
		if len(columns) > 1 && strings.Contains(columns[0]+columns[1], "`"+name+"`") {
			return columns
		}
	}
	return nil
}

// Each reason and each status has a sentence on what it means and what to do.
func TestDocumentedReasons(t *testing.T) {
	text, err := os.ReadFile("docs/reasons.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, pattern := range []string{`(?m)^\tReason\w+ +Reason += "([^"]+)"`, `(?m)^\t(Status\w+) +Status += \d`} {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(string(source), -1)
		if len(found) < 12 {
			t.Fatalf("%q matches %d constants, want all", pattern, len(found))
		}
		for _, constant := range found {
			row := rowOf(string(text), constant[1])
			if len(row) != 4 {
				t.Errorf("docs/reasons.md: the row of %s has the columns %q, want 4", constant[1], row)
				continue
			}
			for i, column := range []string{"Meaning", "What to do"} {
				if text := row[2+i]; len(strings.Fields(text)) < 2 {
					t.Errorf("docs/reasons.md: %s: %s is %q, want a sentence", constant[1], column, text)
				}
			}
			if row[2] == row[3] {
				t.Errorf("docs/reasons.md: %s: both columns are %q, want what it means and what to do", constant[1], row[2])
			}
		}
	}
}
