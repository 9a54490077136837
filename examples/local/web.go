package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"time"

	"example.com/apns/apnstest"
	"example.com/apns/examples/local/page"
)

// servePage serves the page until ctx ends, and returns its address. Errors that come later
// are printed.
func servePage(ctx context.Context, addr string, p *page.Page) (url string, err error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return "", fmt.Errorf("%w (-page-addr gives the page another address, -page=false leaves it out)", err)
	}
	if net.ParseIP(host) == nil {
		p.Host = host
	}
	if tcp, ok := listener.Addr().(*net.TCPAddr); ok && !tcp.IP.IsLoopback() {
		fmt.Fprintf(os.Stderr, "The page is not on loopback: whoever can connect to %s sees all messages and changes the answers.\n", listener.Addr())
	}
	server := &http.Server{Handler: p.Handler(), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10}
	context.AfterFunc(ctx, func() { server.Close() })
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			fmt.Fprintln(os.Stderr, "error: the page:", err)
		}
	}()
	return "http://" + page.Reachable(listener.Addr().String()) + "/", nil
}

// openBrowser opens a page in the browser of the desktop, and waits for the command that does
// it. That may take as long as the browser runs. If the command fails, it prints where the page
// is, unless ctx has ended.
func openBrowser(ctx context.Context, url string) {
	command := []string{"xdg-open", url}
	switch runtime.GOOS {
	case "darwin":
		command[0] = "open"
	case "windows":
		command = []string{"rundll32", "url.dll,FileProtocolHandler", url}
	}
	// Not CommandContext: a browser may stay open when this program ends.
	if err := exec.Command(command[0], command[1:]...).Run(); err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "no browser could be opened: see", url)
	}
}

// keepAuthorization writes a file with an authorization field for curl, which cannot sign
// provider tokens, and replaces it before the token expires. The first one is written when it
// returns.
func keepAuthorization(ctx context.Context, file string, p8 []byte) error {
	write := func() error {
		token, err := providerToken(p8, time.Now())
		if err != nil {
			return err
		}
		// A command that reads the file at this moment must find a whole one.
		if err := os.WriteFile(file+".new", []byte("authorization: bearer "+token+"\n"), 0o600); err != nil {
			return err
		}
		return os.Rename(file+".new", file)
	}
	if err := write(); err != nil {
		return err
	}
	go func() {
		for {
			select {
			case <-time.After(30 * time.Minute): // a token is valid for an hour
			case <-ctx.Done():
				return
			}
			if err := write(); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
			}
		}
	}()
	return nil
}

// providerToken signs a provider token. The source is "Establishing a token-based connection
// to APNs".
func providerToken(p8 []byte, at time.Time) (string, error) {
	block, _ := pem.Decode(p8)
	if block == nil {
		return "", errors.New("the authentication key is no PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return "", errors.New("the authentication key is invalid")
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return "", errors.New("the authentication key is of another kind, expected ECDSA")
	}
	encode := base64.RawURLEncoding.EncodeToString
	signed := encode(fmt.Appendf(nil, `{"alg":"ES256","kid":%q}`, apnstest.KeyID)) + "." +
		encode(fmt.Appendf(nil, `{"iss":%q,"iat":%d}`, apnstest.TeamID, at.Unix()))
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, private, digest[:])
	if err != nil {
		return "", err
	}
	return signed + "." + encode(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)), nil
}
