/* python.exe for a python311.dll that came without one. It needs no start files of a C library. */
__declspec(dllimport) int Py_Main(int count, unsigned short **arguments);
__declspec(dllimport) int _configure_wide_argv(int mode);
__declspec(dllimport) int *__p___argc(void);
__declspec(dllimport) unsigned short ***__p___wargv(void);
__declspec(dllimport) __attribute__((noreturn)) void ExitProcess(unsigned status);

void start(void)
{
    enum { UNEXPANDED = 1 }; /* * and ? are not file names' yet */
    _configure_wide_argv(UNEXPANDED);
    ExitProcess((unsigned)Py_Main(*__p___argc(), *__p___wargv()));
}
