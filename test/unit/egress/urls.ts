// URLs for the tests of egress: what must never be called, in every disguise, and what may.

const long = `https://hooks.example.com/${'a'.repeat(2048)}`;

/** Refused by their text alone, outside the local stage. */
export const refusedUrls: readonly string[] = [
  // Loopback in every spelling
  'https://127.0.0.1/', 'https://127.0.0.1:8443/', 'https://127.1/', 'https://127.0.1/', 'https://127.255.255.254/',
  'https://2130706433/', 'https://0x7f000001/', 'https://0x7f.1/', 'https://0x7f.0x0.0x0.0x1/', 'https://0177.0.0.1/', 'https://017700000001/',
  'https://127.0.0.1./', 'https://１２７.0.0.1/', 'https://①②⑦.0.0.1/', 'https://127。0。0。1/', 'https://127%2e0%2e0%2e1/', 'https://%31%32%37.0.0.1/',
  'https://localhost/', 'https://LOCALHOST/', 'https://localhost./', 'https://localhost:8443/', 'https://a.localhost/', 'https://localhost.localdomain/', 'https://ｌocalhost/',
  // Nothing and everything
  'https://0/', 'https://0.0.0.0/', 'https://0x0/', 'https://255.255.255.255/', 'https://4294967295/',
  // Private networks
  'https://10.0.0.1/', 'https://10.255.255.255/', 'https://172.16.0.1/', 'https://172.31.255.255/', 'https://192.168.0.1/', 'https://192.168.255.255/', 'https://3232235521/', 'https://0xc0a80001/', 'https://012.0.0.1/',
  // Metadata, link-local, carrier NAT
  'https://169.254.169.254/latest/meta-data/', 'https://169.254.170.2/v2/credentials', 'https://0xa9fea9fe/', 'https://2852039166/', 'https://169.254.0.1/', 'https://100.64.0.1/', 'https://100.127.255.255/',
  'https://metadata.google.internal/', 'https://instance-data.ec2.internal/',
  // Documentation, benchmarks, multicast, reserved
  'https://192.0.0.1/', 'https://192.0.2.1/', 'https://198.51.100.1/', 'https://203.0.113.1/', 'https://198.18.0.1/', 'https://198.19.255.255/', 'https://192.88.99.1/', 'https://224.0.0.1/', 'https://239.255.255.255/', 'https://240.0.0.1/',
  // IPv6
  'https://[::1]/', 'https://[::]/', 'https://[0:0:0:0:0:0:0:1]/', 'https://[::ffff:127.0.0.1]/', 'https://[::ffff:7f00:1]/', 'https://[::127.0.0.1]/', 'https://[::ffff:169.254.169.254]/', 'https://[::ffff:10.0.0.1]/',
  'https://[64:ff9b::7f00:1]/', 'https://[64:ff9b::169.254.169.254]/', 'https://[64:ff9b:1::1]/', 'https://[fe80::1]/', 'https://[fec0::1]/', 'https://[fc00::1]/', 'https://[fd00:ec2::254]/', 'https://[ff02::1]/',
  'https://[2001:db8::1]/', 'https://[2001::1]/', 'https://[2001:0:4136:e378::]/', 'https://[2002:7f00:1::]/', 'https://[2002:a9fe:a9fe::]/', 'https://[100::1]/', 'https://[fe80::1%25eth0]/',
  // Names that are local or not whole
  'https://printer.local/', 'https://db.internal/', 'https://router.home.arpa/', 'https://intranet/', 'https://kubernetes/', 'https://ip6-localhost/',
  // Schemes
  'http://hooks.example.com/', 'ftp://hooks.example.com/', 'file:///etc/passwd', 'gopher://hooks.example.com:70/_x', 'data:text/plain,x', 'javascript:alert(1)', 'ws://hooks.example.com/', 'wss://hooks.example.com/', 'dict://hooks.example.com/', 'blob:https://hooks.example.com/x', '//hooks.example.com/', 'hooks.example.com', '/hook', 's3://bucket/key', 'https:',
  // Ports
  'https://hooks.example.com:22/', 'https://hooks.example.com:80/', 'https://hooks.example.com:8080/', 'https://hooks.example.com:6379/', 'https://hooks.example.com:65535/', 'https://hooks.example.com:0/', 'https://hooks.example.com:99999/',
  // Users
  'https://user@hooks.example.com/', 'https://user:pw@hooks.example.com/', 'https://:pw@hooks.example.com/', 'https://hooks.example.com@127.0.0.1/', 'https://hooks.example.com:443@169.254.169.254/', 'https://hooks.example.com%40evil.example/',
  // Text that readers take apart differently
  'https://hooks.example.com/\r\nX-Evil: 1', 'https://hooks.example.com/\n', ' https://hooks.example.com/', 'https://hooks.example.com/ ', 'https://hooks.exa\tmple.com/', 'https://hooks.example.com/\u0000', 'https://127.0.0.1\\@hooks.example.com/', 'https:///127.0.0.1/', 'https:\\\\127.0.0.1\\', 'https://127.0.0.1#@hooks.example.com/', 'https://127.0.0.1?@hooks.example.com/', 'https://[::1', 'https://[]/', 'https:// /', 'https://?', 'https://.../', '', 'not a url', long,
];

/** May be called from every stage. */
export const allowedUrls: readonly string[] = [
  'https://hooks.example.com/', 'https://hooks.example.com:443/x', 'https://hooks.example.com:8443/x?y=z#w', 'https://HOOKS.Example.COM/', 'https://hooks.example.com./', 'https://xn--bcher-kva.example/', 'https://bücher.example/',
  'https://93.184.215.14/', 'https://1.1.1.1/', 'https://172.32.0.1/', 'https://172.15.255.255/', 'https://100.63.255.255/', 'https://100.128.0.1/', 'https://192.0.1.1/', 'https://11.0.0.1/', 'https://223.255.255.255/',
  'https://[2606:4700:4700::1111]/', 'https://[2a00:1450:4001:800::200e]/', 'https://nothing-here.invalid/', 'https://localhost.example.com/', 'https://internal.example.com/', 'https://127.0.0.1.example.com/',
];
