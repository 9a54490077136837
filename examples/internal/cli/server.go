package cli

import (
	"crypto/tls"
	"crypto/x509"
	"flag"
	"fmt"
	"net"
	"os"

	"example.com/apns"
	"example.com/apns/internal/secret"
)

// A Server has the flags that name a server and the credentials for it. The files may hold
// secrets, and so may a flag that should have had a file's name: errors do not quote them.
type Server struct {
	Local   bool   // the built-in test server, in place of the others
	Addr    string // empty: production, or the sandbox
	Sandbox bool

	P8, KeyID, TeamID string
	Cert, Key         string
	CA                string
	BundleID          string
}

// AddFlags defines the flags. The text says what the address is if -addr is not given.
func (s *Server) AddFlags(defaultAddr string) {
	flag.BoolVar(&s.Local, "local", false, "use the built-in test server, which has its own credentials")
	flag.StringVar(&s.Addr, "addr", "", "the server's `host:port`; "+defaultAddr)
	flag.BoolVar(&s.Sandbox, "sandbox", false, "use the sandbox, "+apns.Sandbox+", for apps that Xcode runs")
	flag.StringVar(&s.P8, "p8", "", "the authentication key, a .p8 `file`")
	flag.StringVar(&s.KeyID, "key-id", "", "the `ID` of the authentication key, 10 capital letters and digits")
	flag.StringVar(&s.TeamID, "team-id", "", "the `ID` of the key's team, 10 capital letters and digits")
	flag.StringVar(&s.Cert, "cert", "", "the provider certificate, a PEM `file`")
	flag.StringVar(&s.Key, "key", "", "the private key of the certificate, a PEM `file`; if empty, the file of -cert")
	flag.StringVar(&s.CA, "ca", "", "the certificate authority to trust instead of the system's, a PEM `file`")
	flag.StringVar(&s.BundleID, "bundle-id", "", "the app's bundle `ID`, from which the topic is made")
}

// Check returns an error if flags are missing or contradict each other.
func (s *Server) Check() error {
	hasKey := s.P8 != ""
	_, _, addrErr := net.SplitHostPort(s.Address())
	switch {
	case s.Local && (s.Addr != "" || s.Sandbox || s.P8+s.KeyID+s.TeamID+s.Cert+s.Key+s.CA != ""):
		return UsageError("-local with an address or credentials, expected neither: it has its own")
	case s.Local:
		return nil
	case addrErr != nil:
		return UsageError("-addr is no address, expected host:port") // not quoted: it may be a secret
	case s.Sandbox && s.Addr != "":
		return UsageError("both -sandbox and -addr, expected one of them")
	case hasKey != (s.KeyID != "") || hasKey != (s.TeamID != ""):
		return UsageError("-p8, -key-id and -team-id go together, expected all three or none")
	case s.Key != "" && s.Cert == "":
		return UsageError("-key without -cert, expected the certificate as well")
	case hasKey && s.Cert != "":
		return UsageError("both -p8 and a certificate, expected one of them")
	case !hasKey && s.Cert == "":
		return UsageError("no credentials, expected -p8 with -key-id and -team-id, or -cert with -key; or -local, which needs none")
	}
	return nil
}

// Address returns the address of the server.
func (s *Server) Address() string {
	switch {
	case s.Addr != "":
		return s.Addr
	case s.Sandbox:
		return apns.Sandbox
	}
	return apns.Production
}

// Config reads the files, and returns the configuration for the server.
func (s *Server) Config() (*apns.Config, error) {
	config := &apns.Config{TLS: new(tls.Config), BundleID: s.BundleID}
	if s.P8 != "" {
		var err error
		if config.Key, err = apns.LoadAuthKey(s.P8, s.KeyID, s.TeamID); err != nil {
			return nil, err
		}
	}
	if s.Cert != "" {
		cert, err := apns.LoadCertificate(s.Cert, s.Key, s.BundleID)
		if err != nil {
			return nil, err
		}
		config.TLS.Certificates = []tls.Certificate{cert}
	}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, secret.FileError(err)
		}
		config.TLS.RootCAs = x509.NewCertPool()
		if !config.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s has no certificate in PEM", s.CA)
		}
	}
	return config, nil
}
