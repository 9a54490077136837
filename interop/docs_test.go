package interop_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The code for sideshow/apns2 in docs/from-apns2.md compiles.
func TestDocumentedForeignCode(t *testing.T) {
	text, err := os.ReadFile("../docs/from-apns2.md")
	if err != nil {
		t.Fatal(err)
	}
	module := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join("sideshow", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(module, name), b, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var code string
	for _, block := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(string(text), -1) {
		if strings.Contains(block[1], "sideshow") {
			code = block[1]
		}
	}
	if code == "" {
		t.Fatal("there is no code for sideshow/apns2")
	}
	if err := os.WriteFile(filepath.Join(module, "main.go"), []byte(code), 0o666); err != nil {
		t.Fatal(err)
	}
	vet := exec.Command("go", "vet", ".")
	vet.Dir = module
	vet.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off")
	if out, err := vet.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "GOPROXY=off") {
			t.Skipf("SKIPPED: github.com/sideshow/apns2 is not in the module cache\n%s", out)
		}
		t.Errorf("%v: %v\n%s", vet, err, out)
	}
}
