package apnstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"sync"
	"time"
)

// BundleID is the bundle ID of the app of the client certificate. KeyID and TeamID are the
// IDs of the authentication key.
const (
	BundleID = "com.example.app"
	KeyID    = "APNSTESTK1"
	TeamID   = "APNSTESTT1"
)

// Certificates has what a program needs to connect to a Server, all in PEM. The keys are
// in PKCS #8.
type Certificates struct {
	CA                    []byte // the authority that signed the other two
	ServerCert, ServerKey []byte // for localhost and the loopback addresses
	ClientCert, ClientKey []byte // a provider certificate for BundleID
	AuthKey               []byte // a .p8 file with the key of KeyID and TeamID
}

// An authKey is what the server knows about an authentication key.
type authKey struct {
	public *ecdsa.PublicKey
	teamID string
}

// addAuthKey creates a key and returns its .p8 file. The caller holds s.mu.
func (s *Server) addAuthKey(keyID, teamID string) []byte {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("apnstest: " + err.Error())
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		panic("apnstest: " + err.Error())
	}
	s.keys[keyID] = authKey{&key.PublicKey, teamID}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// An authority signs the certificates of one server. Each certificate has its own key.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	pool   *x509.CertPool
	server tls.Certificate
	client tls.Certificate

	mu    sync.Mutex                  // protects following
	names map[string]*tls.Certificate // of the server, by host name
}

func newAuthority() *authority {
	a := &authority{pool: x509.NewCertPool(), names: make(map[string]*tls.Certificate)}
	ca := must(a.sign(&x509.Certificate{
		// A client compares the issuer of its certificate with this name, to find out
		// whether the server accepts it. So the name must be unique.
		Subject:               pkix.Name{CommonName: "apnstest CA " + rand.Text()[:8]},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}))
	a.cert, a.key = ca.Leaf, ca.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	a.server = must(a.serverCert("localhost", net.IPv4(127, 0, 0, 1), net.IPv6loopback))
	a.client = must(a.sign(&x509.Certificate{
		// As in Apple's certificates, the user ID (OID 0.9.2342.19200300.100.1.1) is the topic.
		Subject: pkix.Name{
			CommonName: "Apple Push Services: " + BundleID,
			ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, Value: BundleID}},
		},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}))
	return a
}

// must panics if one of the server's own certificates could not be created.
func must(c tls.Certificate, err error) tls.Certificate {
	if err != nil {
		panic("apnstest: " + err.Error())
	}
	return c
}

func (a *authority) serverCert(name string, ips ...net.IP) (tls.Certificate, error) {
	return a.sign(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		DNSNames:    []string{name},
		IPAddresses: ips,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
}

// sign creates a key and a certificate for it. The authority signs the certificate. The
// authority's own certificate, which is the first, is self-signed.
func (a *authority) sign(template *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template.NotBefore = time.Now().Add(-time.Hour)
	template.NotAfter = time.Now().AddDate(1, 0, 0)
	parent, signer := template, key
	if a.cert != nil {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// serverConfigs returns the configurations for the binary protocol and for HTTP/2. It
// fills in what from, which may be nil, does not set.
func (a *authority) serverConfigs(from *tls.Config) (binary, http2 *tls.Config) {
	config := new(tls.Config)
	if from != nil {
		config = from.Clone()
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil {
		config.GetCertificate = a.certificateFor
	}
	if config.ClientCAs == nil {
		config.ClientCAs = a.pool
	}
	http2 = config.Clone()
	http2.NextProtos = []string{"h2"}
	if config.ClientAuth == tls.NoClientCert {
		config.ClientAuth = tls.RequireAndVerifyClientCert
		http2.ClientAuth = tls.VerifyClientCertIfGiven
	}
	return config, http2
}

// certificateFor returns a certificate for the name that the client requests, which can
// be any. A client that requests none gets a certificate for the address that it dialed.
func (a *authority) certificateFor(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	name := hello.ServerName
	var ips []net.IP
	if name == "" {
		local, ok := hello.Conn.LocalAddr().(*net.TCPAddr)
		if !ok || local.IP.Equal(net.IPv4(127, 0, 0, 1)) || local.IP.Equal(net.IPv6loopback) {
			return &a.server, nil
		}
		name, ips = local.IP.String(), []net.IP{local.IP}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.names[name]; cert != nil {
		return cert, nil
	}
	cert, err := a.serverCert(name, ips...)
	if err != nil {
		return nil, err
	}
	a.names[name] = &cert
	return &cert, nil
}

func (a *authority) clientConfig() *tls.Config {
	return &tls.Config{RootCAs: a.pool.Clone(), Certificates: []tls.Certificate{a.client}}
}

func (a *authority) pem() Certificates {
	encode := func(kind string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	}
	pair := func(c tls.Certificate) (cert, key []byte) {
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			panic("apnstest: " + err.Error())
		}
		return encode("CERTIFICATE", c.Certificate[0]), encode("PRIVATE KEY", der)
	}
	var cs Certificates
	cs.CA = encode("CERTIFICATE", a.cert.Raw)
	cs.ServerCert, cs.ServerKey = pair(a.server)
	cs.ClientCert, cs.ClientKey = pair(a.client)
	return cs
}
