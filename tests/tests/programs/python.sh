# A virtual environment with pip on the mount: packages installed from a wheel, run, upgraded, removed
cd "$1"
export HOME="$1/home" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INDEX=1 PYTHONDONTWRITEBYTECODE=
mkdir home wheels
python3 - wheels <<'P'
import base64, hashlib, sys, zipfile
for version in ('1.0', '2.0'):
    files = {'granarydemo/__init__.py': 'VERSION = %r\ndef main():\n    from . import data\n    print("demo", VERSION, sum(m.VALUE for m in data.modules()))\n' % version,
             'granarydemo/data/__init__.py': 'import importlib\ndef modules():\n    return [importlib.import_module("granarydemo.data.m%d" % i) for i in range(300)]\n'}
    for i in range(300):
        files['granarydemo/data/m%d.py' % i] = 'VALUE = %d\n' % i
    info = 'granarydemo-%s.dist-info' % version
    files[info + '/METADATA'] = 'Metadata-Version: 2.1\nName: granarydemo\nVersion: %s\n' % version
    files[info + '/WHEEL'] = 'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
    files[info + '/entry_points.txt'] = '[console_scripts]\ngranary-demo = granarydemo:main\n'
    record = ''
    for name, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
        record += '%s,sha256=%s,%d\n' % (name, digest, len(text))
    files[info + '/RECORD'] = record + info + '/RECORD,,\n'
    with zipfile.ZipFile('%s/granarydemo-%s-py3-none-any.whl' % (sys.argv[1], version), 'w') as z:
        for name, text in files.items(): z.writestr(name, text)
P
python3 -m venv venv
venv/bin/pip install -q --find-links wheels granarydemo==1.0
[ "$(venv/bin/granary-demo)" = 'demo 1.0 44850' ]
venv/bin/pip install -q --find-links wheels --upgrade granarydemo
[ "$(venv/bin/granary-demo)" = 'demo 2.0 44850' ]
venv/bin/pip check
venv/bin/python -m compileall -q venv/lib
venv/bin/python -c 'import granarydemo.data, sys; assert granarydemo.__file__.startswith(sys.prefix), granarydemo.__file__'
venv/bin/pip uninstall -q -y granarydemo
! venv/bin/python -c 'import granarydemo' 2>/dev/null
[ ! -e "$(echo venv/lib/python3*/site-packages)/granarydemo" ]
