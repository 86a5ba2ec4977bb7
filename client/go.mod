module github.com/throttlekit/throttlekit-go/client

go 1.26.0

require github.com/throttlekit/throttlekit-go v0.0.0
require github.com/throttlekit/throttlekit-go/api v0.0.0

replace github.com/throttlekit/throttlekit-go => ..
replace github.com/throttlekit/throttlekit-go/api => ../api
