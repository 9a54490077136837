module example.com/apns/interop/hpack

go 1.26.0

require example.com/apns v0.0.0

require golang.org/x/net v0.62.0

replace example.com/apns => ../..
